"""Li and Liang 2021."""
