"""Base models and adapters: loaded and verified."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from grocer.errors import ModelError
from grocer.model.base import load_adapter, load_nf4, load_tokenizer, read_config
from tests.fixtures.tiny_model import random_adapter


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "copy")


def test_other_model_types_are_rejected(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ModelError, match="has model type t5, not a causal"):
        load_nf4(copy, torch.float32, "cpu")
    (copy / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(ModelError, match=r"cannot read config.json"):
        load_nf4(copy, torch.float32, "cpu")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_base_is_never_run(
    copy: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks on a terminal
    classes = {"AutoConfig": "code.Code", "AutoTokenizer": [None, "code.Code"]}
    content = {"model_type": "unheard-of", "tokenizer_class": "Code", "auto_map": classes}
    (copy / file).write_text(json.dumps(content))
    (copy / "code.py").write_text(f"open({str(copy / 'run')!r}, 'w')\nclass Code: pass\n")
    with pytest.raises(ModelError, match="requires custom code, which is never run"):
        load_tokenizer(copy) if file == "tokenizer_config.json" else read_config(copy)
    assert not (copy / "run").exists()


def test_missing_weights_are_rejected(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"for example model\.layers\.1\.mlp\.up_proj\.weight \(1 in total\)"
    ):
        load_nf4(copy, torch.float32, "cpu")


def test_truncated_or_pickled_weights_are_rejected(copy: Path) -> None:
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot read the weights"):
        load_nf4(copy, torch.float32, "cpu")
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(object))
    with pytest.raises(ModelError, match="cannot read the weights"):
        load_nf4(copy, torch.float32, "cpu")


def test_missing_tokenizer_is_rejected(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="no readable tokenizer"):
        load_tokenizer(copy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shardable_weights_are_the_same_bits(base: Path, dtype: torch.dtype) -> None:
    """FSDP shards floating-point tensors only, and must not convert them."""
    usual = load_nf4(base, dtype, "cpu", dequantize=False)
    shardable = load_nf4(base, dtype, "cpu", shardable=True)
    weights = dict(shardable.named_parameters())
    assert {weight.dtype for weight in weights.values()} == {dtype}
    for name, weight in usual.named_parameters():
        stored = [each.detach().flatten().view(torch.uint8) for each in (weights[name], weight)]
        assert torch.equal(*stored), name
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(shardable(ids).logits, usual(ids).logits)


def test_adapter_of_another_shape_is_rejected(base: Path, tmp_path: Path) -> None:
    random_adapter(base).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    narrow = {name: weight[:, :3].contiguous() for name, weight in load_file(path).items()}
    save_file(narrow, path)
    with pytest.raises(ModelError, match="does not fit its base"):
        load_adapter(load_nf4(base, torch.float32, "cpu"), tmp_path / "adapter")


@pytest.mark.parametrize("dequantize", [True, False])
def test_saved_adapter_gives_equal_logits(base: Path, tmp_path: Path, dequantize: bool) -> None:
    tuned = random_adapter(base)
    tuned.save_pretrained(tmp_path / "adapter")
    loaded = load_adapter(
        load_nf4(base, torch.float32, "cpu", dequantize=dequantize), tmp_path / "adapter"
    )
    ids = torch.tensor([[1, 30, 40]])
    with torch.inference_mode():
        torch.testing.assert_close(tuned(input_ids=ids).logits, loaded(input_ids=ids).logits)
    assert isinstance(loaded, PeftModel) != dequantize
