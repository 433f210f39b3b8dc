"""Training programs: a Job as PyTorch code. One Program serves the ghost GPU and real hardware alike."""
