"""A safetensors file written from streams: no tensor is ever whole in memory, which the library's own writer asks for.

The format (8 bytes of header length, a JSON header, then the tensors back to back) is read by the library everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
}
"""Dtypes that can be streamed, with their names in the file."""


class Stream(NamedTuple):
    """One tensor of the file: its chunks, in order, make up `shape`; asked for once those before are written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Tensor]]


def write_streams(file: Path, streams: Sequence[Stream], metadata: Mapping[str, str]) -> None:
    """Write `streams` as the tensors of a safetensors file: widest dtype first, so that every element is aligned, and
    in the order given among those of one width.

    Not atomic: give it the temporary file of `lora_xs.atomic.replace_file`. Raises RuntimeError for a stream whose
    chunks do not add up to its shape, OSError where the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    ordered = sorted(streams, key=lambda stream: -stream.dtype.itemsize)
    offset = 0
    for stream in ordered:
        end = offset + math.prod(stream.shape) * stream.dtype.itemsize
        header[stream.name] = {
            "dtype": CODES[stream.dtype],
            "shape": list(stream.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for stream in ordered:
            written = 0
            for chunk in stream.chunks():
                if chunk.dtype != stream.dtype:
                    raise RuntimeError(f"{stream.name}: a chunk of {chunk.dtype} in a stream of {stream.dtype}")
                written += out.write(raw_bytes(chunk))
            if written != math.prod(stream.shape) * stream.dtype.itemsize:
                raise RuntimeError(f"{stream.name}: {written} bytes came for the shape {list(stream.shape)}")


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, row by row, of any dtype; a copy only where it is not contiguous on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
