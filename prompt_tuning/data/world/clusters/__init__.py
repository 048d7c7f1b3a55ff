"""One module per cluster of tasks; each offers `TASKS` and `passages(rng, language, domain)`."""
