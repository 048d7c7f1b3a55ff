"""Longpre et al. 2023."""
