"""Wang et al. 2022, Super-NaturalInstructions."""
