"""Validation: predictions beside memory and speed that others published, and beside Runs of our own. What both have in common stands here."""
