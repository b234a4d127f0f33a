"""The reader of GGUF files: values, tensors, and files that are damaged."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader

from grocer.errors import ModelError
from grocer.model.sources.gguf.file import read_gguf
from tests.fixtures.gguf_files import metadata, tensors, tiny_llama, write_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    values = metadata() | {"a.flag": True, "a.list": [1, -2], "a.numbers": [0.5, 2.0]}
    return write_gguf(path, tensors(tiny_llama()), values, Kind.Q8_0)


def test_content_equals_that_of_the_reference_reader(file: Path) -> None:
    content, reference = read_gguf(file), GGUFReader(file)
    expected: dict[str, Any] = {
        key: field.contents()
        for key, field in reference.fields.items()
        if not key.startswith("GGUF.")
    }
    assert content.metadata == expected
    assert [tensor.name for tensor in content.tensors] == [t.name for t in reference.tensors]
    for tensor, other in zip(content.tensors, reference.tensors, strict=True):
        assert tensor.kind == other.tensor_type
        assert tensor.shape == tuple(reversed(other.shape.tolist()))
        assert np.array_equal(tensor.blocks, other.data.reshape(-1).view(np.uint8))


@pytest.mark.parametrize("share", [0.00002, 0.0001, 0.01, 0.05, 0.5, 0.999])
def test_truncated_file_is_rejected(file: Path, tmp_path: Path, share: float) -> None:
    content = file.read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"truncated|not a GGUF file"):
        read_gguf(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a GGUF file"),
        (b"PK\x03\x04 a zip archive", "is not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "has GGUF version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "has GGUF version 50331648"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "truncated or damaged"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 77), "a value of type 77"),
        (b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**62), "truncated or"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"\xff", 4) + bytes(4), "truncated or"),
    ],
)
def test_damaged_header_is_rejected(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        read_gguf(tmp_path / "model.gguf")


@pytest.mark.parametrize(("number", "label"), [(Kind.Q8_K.value, "Q8_K"), (9999, "type 9999")])
def test_unsupported_quantisation_is_rejected(
    file: Path, tmp_path: Path, number: int, label: str
) -> None:
    content = bytearray(file.read_bytes())
    name = b"blk.1.ffn_down.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8
    assert struct.unpack_from("<I", content, at) == (Kind.Q8_0.value,)
    struct.pack_into("<I", content, at, number)
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=rf"tensor blk.1.ffn_down.weight has {label}, which"):
        read_gguf(tmp_path / "model.gguf")
