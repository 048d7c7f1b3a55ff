"""Lester et al. 2021."""
