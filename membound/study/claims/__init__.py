"""What the report states of its own runs, claim by claim, and how far ours agree."""
