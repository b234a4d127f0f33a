"""The memory estimate: plausible for Llama-2-7b, and rejects runs that do not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, PretrainedConfig, Qwen3Config

from grocer.config.recipes import recipe
from grocer.errors import ModelError, TrainingError
from grocer.training import memory_estimate
from grocer.training.dataset import TrainingSet
from grocer.training.memory_estimate import (
    Estimate,
    ModelShape,
    estimate,
    read_shape,
    require_memory,
)

GIB = 2**30


# 40,000 products.
EXAMPLES = TrainingSet(None, tuple(range(136)), np.full(40_000, 18), 4, nodes=(), truncated_names=0)


def shape_of(config: PretrainedConfig, directory: Path) -> ModelShape:
    config.save_pretrained(directory)
    return read_shape(directory, 16, "all-linear")


def needed(shape: ModelShape, *settings: str, name: str = "llama2-7b-t4") -> Estimate:
    """Return the estimate of a recipe with settings."""
    config = recipe(name).with_settings(settings)
    return estimate(shape, EXAMPLES, config, "cuda", getattr(torch, config.base.compute_dtype))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    config = LlamaConfig(architectures=["LlamaForCausalLM"])
    return shape_of(config, tmp_path_factory.mktemp("llama"))


def test_llama_2_7b_estimate(llama: ModelShape) -> None:
    assert llama.quantized + llama.other == 6_738_415_616
    assert llama.adapter == 39_976_960
    expected = needed(llama)
    assert 3.5 * GIB < expected.weights < 4.2 * GIB
    assert expected.adapter == 39_976_960 * 16
    assert 4.5 * GIB < expected.memory < 10 * GIB
    assert expected.tokens == 1250 * 136 + 40_000 * 18


def test_qwen3_4b_fits_a_t4(tmp_path: Path) -> None:
    config = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    shape = shape_of(config, tmp_path)
    assert shape.quantized + shape.other == 4_022_468_096
    expected = needed(shape, name="qwen3-4b-t4")
    assert expected.weights < 2.8 * GIB
    assert expected.memory < 10 * GIB


def test_estimate_follows_the_settings(llama: ModelShape) -> None:
    default = needed(llama)
    larger = needed(llama, "train.per_device_train_batch_size=128")
    assert larger.activations > default.activations
    no_checkpointing = needed(llama, "train.activation_checkpointing=false")
    assert no_checkpointing.memory > 2 * default.memory
    padded = needed(llama, "train.packing=false")
    assert padded.tokens > 5 * default.tokens
    assert padded.activations > 3 * default.activations
    assert needed(llama, "train.optim=paged_adamw_8bit").adapter < default.adapter
    steps = needed(llama, "train.max_steps=125")
    assert steps.tokens == pytest.approx(default.tokens / 10)


@pytest.fixture(scope="module")
def llama_70b(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    return shape_of(config, tmp_path_factory.mktemp("llama-70b"))


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_llama_2_70b_is_sharded(llama_70b: ModelShape, processes: int) -> None:
    assert llama_70b.quantized == 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672)
    assert llama_70b.quantized + llama_70b.other == 68_976_648_192
    adapter = 16 * 80 * (2 * 16_384 + 2 * 9_216 + 3 * 36_864)
    expected = needed(llama_70b, f"train.processes_per_node={processes}", name="llama2-70b-fsdp")
    four_bit, others, scales = 34.2255e9, 1.0512e9, 1.0863e9  # bytes
    layer = (four_bit + 2 * adapter) / 80
    assert expected.base == pytest.approx(four_bit + scales + others, rel=1e-4)
    assert expected.weights == pytest.approx(
        (four_bit + others) / processes + scales + others + 3 * layer, rel=1e-4
    )
    assert expected.adapter == 16 * adapter / processes
    # 8 products: 280 tokens, of which each layer keeps its input.
    assert expected.activations > 80 * 280 * 8192 * 2
    assert expected.loading == pytest.approx(0.8 * GIB + 1.1 * expected.base)


@pytest.mark.parametrize(
    ("settings", "memory", "reason"),
    [
        ((), 44, None),
        (("train.fsdp=false",), 44, r"about 47\.7 GiB .*several processes with train\.fsdp=true"),
        ((), 22, r"38\.1 GiB per GPU .*the 4-bit base does not fit"),
        (("lora.r=512", "train.processes_per_node=2"), 44, "more processes with train.fsdp=true"),
    ],
)
def test_llama_2_70b_fits_48_gb_only_if_sharded(
    llama_70b: ModelShape,
    settings: tuple[str, ...],
    memory: int,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: memory * GIB)
    monkeypatch.setattr(memory_estimate, "measure_speed", lambda device, dtype: 180e12)
    config = recipe("llama2-70b-fsdp").with_settings(settings)
    shape = replace(llama_70b, adapter=llama_70b.adapter // 16 * config.lora.r)
    estimated = needed(shape, *settings, name="llama2-70b-fsdp")
    if reason:
        with pytest.raises(TrainingError, match=reason):
            require_memory(estimated, config, "cuda", torch.bfloat16)
    else:
        require_memory(estimated, config, "cuda", torch.bfloat16)
        expected = "38.1 GiB per GPU (38.1 GiB while the base is loaded, then base 11.4 GiB,"
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_documented_memory_of_each_gpu(llama_70b: ModelShape, processes: int) -> None:
    batch = f"train.per_device_train_batch_size={32 // processes}"
    settings = (f"train.processes_per_node={processes}", batch)
    each = needed(llama_70b, *settings, name="llama2-70b-fsdp")
    parts = (each.base, each.weights, each.adapter, each.activations, each.memory)
    cells = [f"{part / GIB:.1f}" for part in parts]
    after = 0.8 + 1.25 * sum(parts[1:4]) / GIB
    page = Path(__file__).parents[3] / "docs" / "cluster.md"
    assert f"| {processes} | {' | '.join(cells)}; {after:.1f} after loading |" in page.read_text()


def test_run_that_does_not_fit_is_rejected_unless_forced(
    llama: ModelShape, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: 5.0 * GIB)
    monkeypatch.setattr(memory_estimate, "measure_speed", lambda device, dtype: 20e12)
    config, expected = recipe("llama2-7b-t4"), needed(llama)
    with pytest.raises(TrainingError, match=r"has 5\.0 GiB; lower train\.per_device.*train\.force"):
        require_memory(expected, config, "cuda", torch.float16)
    forced = config.with_settings(["train.force=true"])
    require_memory(expected, forced, "cuda", torch.float16)
    output = capsys.readouterr().out
    assert "890,000 tokens · about" in output
    assert "continuing with train.force=true" in output


def test_memory_and_speed_of_this_machine_are_plausible() -> None:
    assert 0.1 * GIB < memory_estimate.available_memory("cpu") < 1e5 * GIB
    assert memory_estimate.measure_speed("cpu", torch.float32) > 1e8


def test_unknown_target_modules_are_rejected(base: Path) -> None:
    with pytest.raises(ModelError, match=r"it has down_proj, gate_proj"):
        read_shape(base, 4, ("query",))
