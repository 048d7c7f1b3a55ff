"""Sanh et al. 2021."""
