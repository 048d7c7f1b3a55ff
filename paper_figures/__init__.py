"""One script a figure: reads CSV, draws; imports no JAX."""
