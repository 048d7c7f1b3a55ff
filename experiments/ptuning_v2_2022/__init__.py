"""Liu et al. 2022 (P-tuning v2)."""
