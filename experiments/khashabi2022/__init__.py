"""Khashabi et al. 2022."""
