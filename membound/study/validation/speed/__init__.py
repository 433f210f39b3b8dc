"""Speed that others published: what Job, Machine and quantity each row stands for, beside its prediction."""
