"""Memory that others published, or that we measured alone: what Job, Machine and quantity each row stands for, beside its prediction."""
