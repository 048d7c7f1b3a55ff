"""The papers, a module each: TITLE, `figures()` and `claims()`, which read results and nothing else."""
