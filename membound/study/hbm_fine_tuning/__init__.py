"""The report's study, repeated: its jobs on its machine and on others, and the page that holds its figures beside ours."""
