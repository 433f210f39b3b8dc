"""One file for each source of memory readings, or for a few small ones: what its rows stand for."""
