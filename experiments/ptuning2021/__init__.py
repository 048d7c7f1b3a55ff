"""Liu et al. 2021."""
