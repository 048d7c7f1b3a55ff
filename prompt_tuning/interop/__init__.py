"""Reading and writing the weights of published models.

`load_base` recognises what a path holds and fills a model's parameters from it, every one, from entries that are all used.
One table a format (`huggingface.py`, `t5x.py`) says which entry a parameter comes from.
"""

from prompt_tuning.interop.safetensors_base import base_sources, load_base, save_base, stated_fields

__all__ = ["base_sources", "load_base", "save_base", "stated_fields"]
