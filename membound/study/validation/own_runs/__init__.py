"""Whole Runs that we measured ourselves, beside prediction: time, traffic, power, energy and memory."""
