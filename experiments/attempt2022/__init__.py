"""Asai et al. 2022, ATTEMPT."""
