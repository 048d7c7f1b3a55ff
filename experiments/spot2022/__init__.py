"""Vu et al. 2022, SPoT."""
