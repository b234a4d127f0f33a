"""Training with FSDP: NF4 weights sharded over processes, over gloo on the CPU."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from grocer.artifacts.adapter import Adapter
from grocer.inference.scorer import Scorer
from grocer.training.memory_estimate import read_shape
from tests.fixtures.training_process import TrainingProcesses
from tests.fixtures.training_runs import adapter_weights, assert_same_losses, max_difference
from tests.grocer.training.test_node import Exchange, start_node

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="FSDP would use the GPU")


def exchange(root: Path, base: Path, processes: int, *settings: str) -> Exchange:
    """Return the inputs of a sharded run with an effective batch of four products."""
    return Exchange(
        root,
        base,
        "train.fsdp=true",
        f"train.processes_per_node={processes}",
        f"train.per_device_train_batch_size={4 // processes}",
        *settings,
    )


def train(
    processes: TrainingProcesses, inputs: Exchange, count: int, shards: Path | None = None
) -> Path:
    """Train as a node with `count` processes, and return the artifact."""
    code = processes.exit_code(start_node(processes, inputs.root, count, shards))
    assert code == 0, (inputs.root / "log").read_text()
    return inputs.model()


@pytest.mark.parametrize("count", [2, 4])
def test_sharded_processes_equal_one_process(
    processes: TrainingProcesses, base: Path, tmp_path: Path, count: int
) -> None:
    inputs, shards = exchange(tmp_path, base, count), tmp_path / "shards"
    shards.mkdir()
    model = train(processes, inputs, count, shards)
    reference = inputs.train_here(base)
    adapter, expected = Adapter.read(model), Adapter.read(reference)
    assert adapter.processes == count
    assert adapter.parameters == expected.parameters
    assert_same_losses(adapter, reference, 1e-3)
    assert adapter.losses[0].loss == pytest.approx(expected.losses[0].loss, abs=1e-5)
    norms = [each.grad_norm for each in expected.losses]
    assert [each.grad_norm for each in adapter.losses] == pytest.approx(norms, rel=2e-3)
    assert adapter.validation_losses[0].loss == pytest.approx(
        expected.validation_losses[0].loss, abs=1e-3
    )
    whole = {name: each.shape for name, each in adapter_weights(reference).items()}
    assert {name: each.shape for name, each in adapter_weights(model).items()} == whole
    Scorer.load(model, base=base)
    check_shards(shards, base, count)


def check_shards(shards: Path, base: Path, count: int) -> None:
    """Each process holds its share of the base, and gathers one layer at a time."""
    shape = read_shape(base, 4, "all-linear")
    reports = [json.loads(path.read_text()) for path in shards.iterdir()]
    assert len(reports) == count
    whole = shape.quantized / 2 + shape.other * 4
    assert sum(report["bytes"] for report in reports) == whole
    for report in reports:
        assert report["bytes"] == pytest.approx(whole / count, rel=0.01)
        assert report["units"].count("FSDPLlamaDecoderLayer") == shape.config.num_hidden_layers


def test_bfloat16_trains_to_similar_losses(
    processes: TrainingProcesses, base: Path, tmp_path: Path
) -> None:
    """As the recipe: bfloat16 weights, activation checkpointing, fused optimizer, accumulation."""
    settings = (
        "base.compute_dtype=bfloat16",
        "train.activation_checkpointing=true",
        "train.optim=adamw_torch_fused",
    )
    inputs = exchange(
        tmp_path,
        base,
        2,
        *settings,
        "train.per_device_train_batch_size=1",
        "train.gradient_accumulation_steps=2",
    )
    adapter = Adapter.read(train(processes, inputs, 2))
    assert adapter.precision == "bf16"
    assert_same_losses(adapter, inputs.train_here(base, *settings), 1e-2)


def test_resumed_run_has_the_same_adapter(
    processes: TrainingProcesses, base: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    inputs = exchange(tmp_path, base, 2, f"train.checkpoints={kept}")
    uninterrupted = train(processes, inputs, 2).rename(tmp_path / "uninterrupted")
    (newest,) = kept.glob("*/checkpoint-000006")
    shutil.rmtree(newest)
    resumed = train(processes, inputs, 2)
    assert Adapter.read(resumed).resumed_from_step == 4
    assert max_difference(uninterrupted, resumed) == 0.0
