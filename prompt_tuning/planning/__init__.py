"""What a run would need on accelerators that are not at hand: `python -m prompt_tuning.plan`."""
