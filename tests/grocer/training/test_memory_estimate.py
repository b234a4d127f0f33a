"""The memory estimate: plausible for Llama-2-7b, and rejects runs that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, Qwen3Config

from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.errors import ModelError, TrainingError
from grocer.training import memory_estimate
from grocer.training.dataset import TrainingSet
from grocer.training.memory_estimate import (
    Estimate,
    ModelShape,
    estimate,
    explain_out_of_memory,
    read_shape,
    require_memory,
)

GIB = 2**30


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    directory = tmp_path_factory.mktemp("llama")
    LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(directory)
    return read_shape(directory, 16, "all-linear")


def t4_config(*settings: str, recipe_name: str = "llama2-7b-t4") -> RunConfig:
    return recipe(recipe_name).with_settings(settings)


def t4_estimate(shape: ModelShape, *settings: str, recipe_name: str = "llama2-7b-t4") -> Estimate:
    """Return the estimate for 40,000 products."""
    sizes = np.full(40_000, 18)
    examples = TrainingSet(None, tuple(range(136)), sizes, 4, nodes=(), truncated_names=0)
    config = t4_config(*settings, recipe_name=recipe_name)
    return estimate(shape, examples, config, torch.float16)


def test_llama_2_7b_estimate(llama: ModelShape) -> None:
    assert llama.quantized + llama.other == 6_738_415_616
    assert llama.adapter == 39_976_960
    expected = t4_estimate(llama)
    assert 3.5 * GIB < expected.weights < 4.2 * GIB
    assert expected.adapter == 39_976_960 * 16
    assert 4.5 * GIB < expected.memory < 10 * GIB
    assert expected.tokens == 1250 * 136 + 40_000 * 18


def test_qwen3_4b_fits_a_t4(tmp_path: Path) -> None:
    Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ).save_pretrained(tmp_path)
    shape = read_shape(tmp_path, 16, "all-linear")
    assert shape.quantized + shape.other == 4_022_468_096
    expected = t4_estimate(shape, recipe_name="qwen3-4b-t4")
    assert expected.weights < 2.8 * GIB
    assert expected.memory < 10 * GIB


def test_estimate_follows_the_settings(llama: ModelShape) -> None:
    default = t4_estimate(llama)
    larger = t4_estimate(llama, "train.per_device_train_batch_size=128")
    assert larger.activations > default.activations
    no_checkpointing = t4_estimate(llama, "train.activation_checkpointing=false")
    assert no_checkpointing.memory > 2 * default.memory
    padded = t4_estimate(llama, "train.packing=false")
    assert padded.tokens > 5 * default.tokens
    assert padded.activations > 3 * default.activations
    assert t4_estimate(llama, "train.optim=paged_adamw_8bit").adapter < default.adapter
    steps = t4_estimate(llama, "train.max_steps=125")
    assert steps.tokens == pytest.approx(default.tokens / 10)


def test_run_that_does_not_fit_is_rejected_unless_forced(
    llama: ModelShape, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: 4.0 * GIB)
    monkeypatch.setattr(memory_estimate, "measure_speed", lambda device, dtype: 20e12)
    needed = t4_estimate(llama)
    with pytest.raises(TrainingError, match=r"has 4\.0 GiB; lower train\.per_device.*train\.force"):
        require_memory(needed, t4_config(), "cuda", torch.float16)
    require_memory(needed, t4_config("train.force=true"), "cuda", torch.float16)
    output = capsys.readouterr().out
    assert "890,000 tokens · about" in output
    assert "continuing with train.force=true" in output


def test_memory_and_speed_of_this_machine_are_plausible() -> None:
    assert 0.1 * GIB < memory_estimate.available_memory("cpu") < 1e5 * GIB
    assert memory_estimate.measure_speed("cpu", torch.float32) > 1e8


def test_unknown_target_modules_are_rejected(base: Path) -> None:
    with pytest.raises(ModelError, match=r"it has down_proj, gate_proj"):
        read_shape(base, 4, ("query",))


def test_out_of_memory_error_names_sizes_and_settings() -> None:
    message = (
        "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.56 GiB "
        "of which 812.12 MiB is free. Including non-PyTorch memory, this process has 13.7 GiB."
    )
    with pytest.raises(TrainingError) as caught, explain_out_of_memory():
        raise torch.cuda.OutOfMemoryError(message)
    text = str(caught.value)
    assert "1.95 GiB, 812.12 MiB of 14.56 GiB free" in text
    for setting in ("train.per_device_train_batch_size", "prompt.max_name_tokens", "lora.r"):
        assert setting in text
    with pytest.raises(RuntimeError, match="another"), explain_out_of_memory():
        raise RuntimeError("another")
