"""Lester et al. 2022."""
