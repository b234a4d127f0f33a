"""Read GGUF files: metadata and memory-mapped tensors.

gguf's own reader creates several arrays for each entry of the vocabulary, which takes seconds, and
does not detect a truncated file. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape

from grocer.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"


@dataclass(frozen=True)
class Tensor:
    """A tensor of a GGUF file; its blocks are read when it is dequantised."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    """Rows first, as in torch; GGUF stores the reverse."""
    blocks: np.ndarray[Any, np.dtype[np.uint8]]

    def values(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the dequantised values as float32."""
        rows = self.blocks.reshape(quant_shape_to_byte_shape(self.shape, self.kind))
        return dequantize(rows, self.kind).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """The content of a GGUF file."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Read a GGUF file's metadata and map its tensors.

    Raises:
        ModelError: not a GGUF file, of another version, truncated or damaged, or with a type of
            tensor that gguf cannot dequantise.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ModelError(f"{path} is not a GGUF file")
        header = _Header(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _read(path, header)
    except (struct.error, ArithmeticError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot read the GGUF header: {error}; the file is truncated or damaged, "
            "download or copy it again"
        ) from error


def _read(path: Path, header: _Header) -> GgufFile:
    (version,) = header.numbers("I")
    if version not in _VERSIONS:
        raise ModelError(f"{path} has GGUF version {version}; supported: 2 and 3, little-endian")
    tensors, entries = header.numbers("QQ")
    metadata = {header.string(): header.value(*header.numbers("I")) for _ in range(entries)}
    infos = [_tensor_info(header) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    start = -(-header.offset // alignment) * alignment
    content = np.frombuffer(header.content, np.uint8)
    return GgufFile(path, metadata, tuple(_tensor(path, content[start:], *info) for info in infos))


def _tensor_info(header: _Header) -> tuple[str, tuple[int, ...], int, int]:
    """Return a tensor's name, shape, number of its type, and offset in the data section."""
    name = header.string()
    (dimensions,) = header.numbers("I")
    shape = tuple(reversed(header.numbers(f"{dimensions}Q")))
    kind, offset = header.numbers("IQ")
    return name, shape, kind, offset


def _tensor(
    path: Path,
    data: np.ndarray[Any, np.dtype[np.uint8]],
    name: str,
    shape: tuple[int, ...],
    number: int,
    offset: int,
) -> Tensor:
    try:
        kind = GGMLQuantizationType(number)
        block, size = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, NotImplementedError):
        names = {kind.value: kind.name for kind in GGMLQuantizationType}
        label = names.get(number, f"type {number}")
        raise ModelError(
            f"{path}: tensor {name} has {label}, which cannot be read; use a file with another "
            "quantisation, such as Q8_0, Q4_K or F16"
        ) from None
    end = offset + math.prod(shape) // block * size
    if end > len(data):
        raise ModelError(
            f"{path} is truncated: tensor {name} ends {end - len(data):,} bytes after the end of "
            "the file; download or copy it again"
        )
    if not shape or shape[-1] % block:
        raise ModelError(f"{path}: tensor {name} has shape {shape}, not in blocks of {block}")
    return Tensor(name, kind, shape, data[offset:end])


class _Header:
    """Reads the header from start to end; struct.error or ValueError if it ends too early."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.offset = content, len(_MAGIC)

    def numbers(self, types: str) -> tuple[Any, ...]:
        """Read numbers of these struct types."""
        layout = f"<{types}"
        values = struct.unpack_from(layout, self.content, self.offset)
        self.offset += struct.calcsize(layout)
        return values

    def string(self) -> str:
        (length,) = self.numbers("Q")
        start, self.offset = self.offset, self.offset + length
        if self.offset > len(self.content):
            raise ValueError(f"a text of {length:,} bytes at offset {start:,}")
        return self.content[start : self.offset].decode()

    def value(self, kind: int) -> Any:
        """Read a value: a number, a text, or a list of one of them."""
        if kind == _ARRAY:
            kind, count = self.numbers("IQ")
            if kind == _STRING:
                return [self.string() for _ in range(count)]
            return list(self.numbers(f"{count}{self._scalar(kind)}"))
        if kind == _STRING:
            return self.string()
        return self.numbers(self._scalar(kind))[0]

    def _scalar(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ValueError(f"a value of type {kind} at offset {self.offset:,}")
        return _SCALARS[kind]
