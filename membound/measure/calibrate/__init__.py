"""What `membound calibrate` measures of a GPU: one file for each family of kernels, and the worker that runs them in a process of its own.

These files import PyTorch and nothing else that need be installed, so that validation/measure_kernels.py runs them on a bare machine; `run.py` is the
door for those who have no PyTorch loaded.
"""
