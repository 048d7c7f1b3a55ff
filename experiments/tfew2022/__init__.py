"""Liu et al. 2022 (T-Few)."""
