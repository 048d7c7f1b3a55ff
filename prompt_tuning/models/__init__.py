"""Base models. Importing this package puts Flax NNX in tree mode, which every module here assumes.

In tree mode a module is a plain pytree: it is split once into graph definition and arrays, and JAX's own transforms do the rest.
"""

from flax import nnx

nnx.set_graph_mode(False)
nnx.set_graph_updates(False)
