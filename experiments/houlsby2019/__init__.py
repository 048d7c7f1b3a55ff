"""Houlsby et al. 2019."""
