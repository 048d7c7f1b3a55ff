"""Wang et al. 2023, MPT."""
