"""Sweeps: one Job on many machines, or under many settings; predicted, or measured at each memory clock."""
