"""One file for each source of speed readings, or for a few small ones: what its rows stand for."""
