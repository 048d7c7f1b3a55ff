"""Writing a safetensors file piece by piece, so that a model need not be in memory to be written.

The format: eight bytes with the header's length, the header in JSON (dtype, shape and place of each array), the arrays' bytes.
"""

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping

import numpy as np

_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def write(
    path: str | os.PathLike[str], shapes: Mapping[str, tuple[int, ...]], pieces: Callable[[str], Iterable[np.ndarray]], *, dtype: np.dtype
) -> None:
    """Writes the arrays of these names and shapes.

    Args:
      path: of the file.
      shapes: by name, in the order in which the arrays are asked for.
      pieces: gives an array in pieces, whose bytes in C order one after the other are the whole's; they are converted to `dtype`.
      dtype: of all arrays: bfloat16, float16 or float32.
    """
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in shapes:
            for piece in pieces(name):
                file.write(np.ascontiguousarray(piece, dtype=dtype).reshape(-1).view(np.uint8).data)
        assert file.tell() == 8 + len(encoded) + end, "the pieces are not those of the shapes"
        file.flush()
        os.fsync(file.fileno())
