"""Vu et al. 2022b."""
