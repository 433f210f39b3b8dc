"""Predictions and measurements composed: one answer with its advice, sweeps, the report's claims and study, calibration, validation."""
