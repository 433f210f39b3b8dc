"""Figures as values: what each shows and its data. Nothing here draws; `membound.report.page` does."""
