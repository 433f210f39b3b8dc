"""Switching a GPU's memory clock for the length of a measurement, and giving it back whatever happens. See docs/clocks.md.

session     one sweep's hold on its GPUs: lock, checks, watchdog; switch, verify, watch, restore
calls       the setting calls that a switch and its undoing make, as values: a dry run prints what a session performs
consent     the one door to an object that performs them
driver      what is asked of a driver; `nvml` the real one, `simulated` one in a file, with faults
journal     the state before any change, on disk before the change
watchdog    the process that restores where the session's own was killed
plan        switching that needs the driver reloaded: steps for a person, resumable
"""
