"""Data: vocabularies, templates, tasks, mixtures and the layout of examples into batches."""
