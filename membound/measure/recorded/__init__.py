"""Recorded machines: what the sensors of a real one answered once, replayed anywhere, with simulated faults or without."""
