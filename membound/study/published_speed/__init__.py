"""Speed that others measured and published, and what Job, Machine and quantity each row stands for."""
