"""Prompt tuning and instruction tuning of T5 in JAX.

Importing the package imports nothing heavy: JAX comes with `prompt_tuning.models`, TensorFlow when data is read.
"""

__version__ = "0.1.0"
