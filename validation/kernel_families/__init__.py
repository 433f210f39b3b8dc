"""Families of kernels that measure_kernels.py measures, one file each."""
