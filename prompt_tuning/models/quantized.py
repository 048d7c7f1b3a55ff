"""Kernels in eight or four bits: a frozen base that takes a quarter or a seventh of its memory in float32, for any method tuned over it.

Paper: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs" (arXiv:2305.14314).

What this file follows: a four-bit kernel holds, for each weight, which of the 16 numbers of NF4 it is nearest to (section 3; appendix E),
and a scale, its largest magnitude, for every 64 weights; it is made into numbers inside the product, whose input gets a gradient and
whose kernel gets none (equation 5). Eight bits are rounded evenly, with a scale for each output. qwix does the rounding.

Where it deviates: the 64 weights of a scale lie along the input width of one output, and where 64 does not divide it, the largest divisor
below takes its place; scales are float32: no double quantization (section 3, 0.37 bits a weight less), no paged optimizer.

What is quantized: the kernels of all linear layers but the head. Embeddings, the head, norms, biases, tables of positions and the experts
of a mixture stay as they are.

A quantized kernel is a module in the place of the parameter, of two parameters of its own, so that tables, shardings, fingerprints and
checkpoints need to know nothing of it. The number that a weight comes to may differ between kinds of machines where it lies between two:
a run is to be resumed on the kind it was started on.

Axes: B batch, S length, I and O input and output width, A scales along the input width; stacked layers stand in front.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.models.layers import Array, Linear, product, written

Quantization = Literal["none", "int8", "nf4"]
Kind = Literal["int8", "nf4"]

_BLOCK = 64
# Appendix E.
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495,
    0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


class QuantizedKernel(nnx.Module):
    """Stands in a linear layer for a frozen kernel [..., I, O].

    Attributes:
      values: int8 [..., I, O]; or uint8 [..., I / 2, O], the places in NF4 of two weights that follow each other along the input width.
      scales: float32 [..., A, O], with A = 1 in eight bits.
      kind: of the values.
      name: of the linear layer, for messages.
    """

    def __init__(self, values_IO: Array, scales_AO: Array, *, axes: tuple[str, ...], kind: Kind, name: str):
        self.values = nnx.Param(values_IO, axes=axes, weights_per_entry=2 if kind == "nf4" else 1)
        self.scales = nnx.Param(scales_AO, axes=axes, weights_per_entry=0)
        self.kind = kind
        self.name = name

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        *stacked, width_in, width_out = self.values.shape
        return (*stacked, width_in * (2 if self.kind == "nf4" else 1), width_out)

    def get_metadata(self) -> dict[str, Any]:
        """The parameter's, as its logical axes."""
        return self.values.get_metadata()

    def __getitem__(self, everything: Any) -> Array:
        """The kernel's numbers, float32: what a parameter gives for `[...]`."""
        assert everything is ..., everything
        return dequantized(self.values[...], self.scales[...], self.kind)

    def set_value(self, value: Any) -> None:
        """Raises UserError: numbers that are put in would come out as others."""
        del value
        raise UserError(
            f"{self.name}: its kernel is quantized ({self.kind}) and cannot be changed; "
            "to merge, or to begin PiSSA, take the base in its own numbers: set --gin.BASE_QUANTIZATION=\"'none'\""
        )

    def product(self, x_BSI: Array) -> Array:
        """The matrix product [B, S, O] in the input's dtype."""
        return _product(x_BSI, self.values[...], self.scales[...], self.kind)


@functools.partial(jax.jit, static_argnames="kind")
def quantized(kernel_IO: Array, kind: Kind) -> tuple[Array, Array]:
    """The values and scales of a kernel, with stacked layers in front or without. Raises UserError for four bits of an odd width."""
    if kernel_IO.ndim > 2:  # One at a time: the 16 distances of every weight are large.
        return jax.lax.map(lambda each: quantized(each, kind), kernel_IO)
    import qwix

    kernel_IO = kernel_IO.astype(jnp.float32)
    if kind == "int8":
        found = qwix.quantize(kernel_IO, jnp.int8, channelwise_axes=[1])
        return found.qvalue, found.scale
    width = kernel_IO.shape[0]
    if width % 2:
        raise UserError(
            f"nf4 keeps two weights in a byte: wanted kernels of an even input width, got {width}; set BASE_QUANTIZATION = 'int8'"
        )
    block = next(size for size in range(min(_BLOCK, width), 0, -1) if width % size == 0)
    found = qwix.quantize(kernel_IO, "nf4", channelwise_axes=[1], tiled_axes={0: block})
    places = found.qvalue.astype(jnp.uint8)  # A CPU would keep a byte for each uint4.
    return places[0::2] | places[1::2] << 4, found.scale


def dequantized(values_IO: Array, scales_AO: Array, kind: Kind) -> Array:
    """The numbers that values and scales stand for, float32 [..., I, O].

    Not left to qwix, which flattens the kernel to look its numbers up: on several devices each would gather the whole.
    """
    if kind == "int8":
        return values_IO.astype(jnp.float32) * jnp.broadcast_to(scales_AO, values_IO.shape)
    *stacked, pairs, width_out = values_IO.shape
    places = jnp.stack([values_IO & 15, values_IO >> 4], axis=-2)
    numbers = jnp.asarray(_NF4, jnp.float32)[places].reshape(*stacked, scales_AO.shape[-2], -1, width_out)
    return (numbers * scales_AO[..., None, :]).reshape(*stacked, 2 * pairs, width_out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x_BSI: Array, values_IO: Array, scales_AO: Array, kind: Kind) -> Array:
    return product(x_BSI, dequantized(values_IO, scales_AO, kind).astype(x_BSI.dtype))


def _product_forward(x_BSI: Array, values_IO: Array, scales_AO: Array, kind: Kind) -> tuple[Array, tuple[Array, Array]]:
    return _product(x_BSI, values_IO, scales_AO, kind), (values_IO, scales_AO)


def _product_backward(kind: Kind, kept: tuple[Array, Array], grad_BSO: Array) -> tuple[Array, None, None]:
    # The kernel is made anew. Without the barrier XLA finds that the forward pass has made it already, and keeps that of every layer.
    values_IO, scales_AO, grad_BSO = jax.lax.optimization_barrier((*kept, grad_BSO))
    kernel_IO = dequantized(values_IO, scales_AO, kind).astype(grad_BSO.dtype)
    grad_BSI = jnp.einsum("...o,io->...i", grad_BSO, kernel_IO, preferred_element_type=written(grad_BSO.dtype)).astype(grad_BSO.dtype)
    return grad_BSI, None, None


_product.defvjp(_product_forward, _product_backward)


def linears(model: nnx.Module) -> dict[str, Any]:
    """The linear layers whose kernels are quantized, by name ("/"-joined path)."""
    found = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model) if isinstance(module, Linear)}
    return {name: found[name] for name in sorted(found) if name != "head"}


def quantize(model: nnx.Module, kind: Quantization) -> None:
    """Quantizes a model's kernels in place; nothing for "none". Runs on an abstract model too."""
    if kind == "none":
        return
    for name, linear in linears(model).items():
        values_IO, scales_AO = quantized(linear.kernel[...], kind)
        linear.kernel = QuantizedKernel(values_IO, scales_AO, axes=linear.kernel.get_metadata()["axes"], kind=kind, name=name)


def quantize_named(values: dict[str, Any], names: Iterable[str], kind: Quantization) -> None:
    """Quantizes arrays by name in place, the kernels of the layers named, one at a time, so that each is freed before the next."""
    if kind != "none":
        _replace(values, names, lambda kernel_IO: quantized(kernel_IO, kind))


def name_sources(sources: dict[str, str], names: Iterable[str], kind: Quantization) -> None:
    """Says in place where the two parameters of each quantized kernel come from: from where the kernel would."""
    if kind != "none":
        _replace(sources, names, lambda source: (f"{source}, as {kind}",) * 2)


def _replace(by_name: dict[str, Any], names: Iterable[str], parts: Callable[[Any], tuple[Any, Any]]) -> None:
    for name in names:
        by_name[f"{name}/kernel/values"], by_name[f"{name}/kernel/scales"] = parts(by_name.pop(f"{name}/kernel"))
