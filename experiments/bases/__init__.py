"""The bases of the papers in miniature."""
