"""The bundled task world: seeded, endless English (and a constructed language) with tasks whose answers are known."""
