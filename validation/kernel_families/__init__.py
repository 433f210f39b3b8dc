"""Families of kernels that only measure_kernels.py measures: no profile is made of them. The others: membound/measure/calibrate."""
