"""Chung et al. 2022."""
