"""Calibration: from measured kernels to the profile that predictions rest on, and how well laws know kernels that they have not seen."""
