"""GGUF files converted to safetensors: equal weights and predictions, or a clear error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from grocer.errors import ModelError
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.sources.find import base_digest
from grocer.model.sources.gguf import convert as conversion
from grocer.model.sources.gguf.convert import convert
from tests.fixtures.gguf_files import metadata, rounded, tensors, tiny_llama, write_gguf

IDS = torch.tensor([[1, 30, 40, 5, 77]])


def loaded(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


def written(tmp_path: Path, name: str = "model.gguf", **changes: Any) -> Path:
    values = {key: value for key, value in (metadata() | changes).items() if value is not None}
    return write_gguf(tmp_path / name, tensors(tiny_llama()), values)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_1])
def test_converted_model_equals_its_source(tmp_path: Path, kind: Kind, tied: bool) -> None:
    model = tiny_llama(tied=tied)
    file = write_gguf(tmp_path / "model.gguf", tensors(model), metadata(), kind)
    convert(file, tmp_path)
    copy = loaded(tmp_path)
    expected = rounded(model, kind)
    weights = dict(copy.named_parameters())
    for name, weight in expected.named_parameters():
        assert torch.equal(weights[name], weight), name
    with torch.inference_mode():
        assert torch.equal(copy(input_ids=IDS).logits, expected(input_ids=IDS).logits)


def test_converted_model_loads_as_a_base(tmp_path: Path) -> None:
    convert(written(tmp_path), tmp_path)
    ids = load_tokenizer(tmp_path)("Organic Milk", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert load_nf4(tmp_path, torch.float32, "cpu")(input_ids=ids).logits.isfinite().all()


def test_large_model_is_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_SHARD_BYTES", 64 * 1024)
    model = tiny_llama()
    convert(written(tmp_path), tmp_path)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    copy = dict(loaded(tmp_path).named_parameters())
    assert all(torch.equal(copy[name], weight) for name, weight in model.named_parameters())


def test_digest_of_a_conversion_does_not_change(tmp_path: Path) -> None:
    """Bundles name their base by this digest; if it has to change, increase `gguf.VERSION`."""
    weights = {
        name: np.linspace(-1, 1, weight.size, dtype=np.float32).reshape(weight.shape)
        for name, weight in tensors(tiny_llama()).items()
    }
    convert(write_gguf(tmp_path / "model.gguf", weights, metadata(), Kind.Q4_1), tmp_path)
    assert base_digest(tmp_path)[:12] == "c9aabc13a520"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "scaled rotary embeddings"),
        ({"llama.block_count": None}, "llama.block_count is None"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count is 0"),
        ({"llama.attention.head_count_kv": [2, 1]}, "llama.attention.head_count_kv is"),
        ({"llama.block_count": 1000}, "llama.block_count is 1,000, but the file has 20"),
        ({"llama.attention.head_count": 3}, "not a valid configuration of Llama"),
        ({"general.alignment": 0}, "cannot read the GGUF header"),
        ({"llama.block_count": 3}, r"model.layers.2.input_layernorm.weight has shape none"),
        ({"llama.block_count": 1}, r"model.layers.1.input_layernorm.weight .* expected none"),
        ({"llama.feed_forward_length": 128}, r"mlp.down_proj.weight has shape \(64, 96\)"),
    ],
)
def test_file_that_is_not_a_plain_llama_is_rejected(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        convert(written(tmp_path, **changes), tmp_path)


@pytest.mark.parametrize(
    "name", ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_exps.weight"]
)
def test_unknown_tensor_is_rejected(tmp_path: Path, name: str) -> None:
    weights = tensors(tiny_llama()) | {name: np.ones(8, np.float32)}
    with pytest.raises(ModelError, match=f"is not a plain Llama: {name}"):
        convert(write_gguf(tmp_path / "model.gguf", weights, metadata()), tmp_path)


def test_other_architecture_is_rejected(tmp_path: Path) -> None:
    file = write_gguf(
        tmp_path / "model.gguf", tensors(tiny_llama()), metadata(), architecture="gemma3"
    )
    with pytest.raises(ModelError, match="has architecture gemma3; only llama"):
        convert(file, tmp_path)


def test_nan_weights_are_rejected(tmp_path: Path) -> None:
    weights = tensors(tiny_llama())
    weights["output_norm.weight"] = np.full(64, np.nan, np.float32)
    with pytest.raises(ModelError, match=r"output_norm.weight has values that are NaN or Inf"):
        convert(write_gguf(tmp_path / "model.gguf", weights, metadata()), tmp_path)
