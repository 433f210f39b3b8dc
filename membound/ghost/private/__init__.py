"""Every private PyTorch and Transformers interface that the ghost stands on, by what it is about. Nothing outside this folder touches one.

Tested against torch 2.13; see docs/ghost.md for the versions that were tried.
"""
