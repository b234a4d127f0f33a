"""Protects the estimate: right in its order of magnitude for Llama-2-7b, and a refusal in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.errors import ModelError, TrainingError
from grocer.training import memory_estimate as estimating
from grocer.training.dataset import TrainingSet
from grocer.training.memory_estimate import (
    Estimate,
    ModelShape,
    estimate,
    read_shape,
    require_memory,
)

GIB = 2**30


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    directory = tmp_path_factory.mktemp("llama")
    LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(directory)
    return read_shape(directory, 16, "all-linear")


def examples(products: int = 40_000) -> TrainingSet:
    sizes = np.full(products, 18)
    return TrainingSet(None, tuple(range(136)), sizes, completion_tokens=4, names_truncated=0)


def for_t4(*settings: str) -> RunConfig:
    return recipe("llama2-7b-t4").with_settings(settings)


def found(llama: ModelShape, *settings: str) -> Estimate:
    return estimate(llama, examples(), for_t4(*settings), torch.float16)


def test_llama_2_7b_by_its_published_shape(llama: ModelShape) -> None:
    assert llama.quantized + llama.other == 6_738_415_616
    assert llama.adapter == 39_976_960
    usual = found(llama)
    assert 3.5 * GIB < usual.weights < 4.2 * GIB
    assert usual.adapter == 39_976_960 * 16
    assert 4.5 * GIB < usual.memory < 10 * GIB
    assert usual.tokens == 1250 * 136 + 40_000 * 18


def test_what_costs_more_is_estimated_higher(llama: ModelShape) -> None:
    usual = found(llama)
    assert found(llama, "train.per_device_train_batch_size=128").activations > usual.activations
    assert found(llama, "train.activation_checkpointing=false").memory > 2 * usual.memory
    assert found(llama, "train.packing=false").tokens > 5 * usual.tokens
    assert found(llama, "train.packing=false").activations > 3 * usual.activations
    assert found(llama, "train.optim=paged_adamw_8bit").adapter < usual.adapter
    assert found(llama, "train.max_steps=125").tokens == pytest.approx(usual.tokens / 10)


def test_what_cant_fit_is_refused_and_forced(
    llama: ModelShape, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimating, "available_memory", lambda device: 4.0 * GIB)
    monkeypatch.setattr(estimating, "measure_speed", lambda device, dtype: 20e12)
    large = found(llama)
    with pytest.raises(TrainingError, match=r"has 4\.0 GiB; lower train\.per_device.*train\.force"):
        require_memory(large, for_t4(), "cuda", torch.float16)
    require_memory(large, for_t4("train.force=true"), "cuda", torch.float16)
    said = capsys.readouterr().out
    assert "890,000 tokens · about" in said
    assert "continuing with train.force=true" in said


def test_this_machine_has_memory_and_speed() -> None:
    assert 0.1 * GIB < estimating.available_memory("cpu") < 1e5 * GIB
    assert estimating.measure_speed("cpu", torch.float32) > 1e8


def test_layers_that_are_not_there_are_named(base: Path) -> None:
    with pytest.raises(ModelError, match=r"no such layers; it has down_proj, gate_proj"):
        read_shape(base, 4, ("query",))
