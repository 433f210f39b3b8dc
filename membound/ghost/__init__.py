"""The ghost GPU: PyTorch with fake tensors on a device that does not exist, every launch recorded. Program -> Trace."""
