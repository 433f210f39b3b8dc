"""Sensors: everything that this machine can tell about itself while a job runs, one way of asking per file."""
