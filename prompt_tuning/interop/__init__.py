"""Reading and writing the weights of published models.

`load_base` recognises what a path holds and fills a model's parameters from it, every one, from entries that are all used.
One table a format (`huggingface.py`, `t5x.py`) says which entry a parameter comes from. Adapters: `peft.py`.
"""

from prompt_tuning.interop.safetensors_base import base_sources, copy_base, load_base, read_config, save_base, stated_fields

__all__ = ["base_sources", "copy_base", "load_base", "read_config", "save_base", "stated_fields"]
