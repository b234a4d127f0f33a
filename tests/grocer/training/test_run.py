"""The training stage: its artifact, packing against padded batches, resume, and errors."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.splits import Splits
from grocer.artifacts.step import step
from grocer.errors import ConfigError, ModelError, StoppedError, TrainingError
from grocer.inference.scorer import Scorer
from grocer.io.atomic import json_digest
from grocer.model.base import load_tokenizer
from grocer.training import run as training
from tests.fixtures.tiny_model import AISLES
from tests.fixtures.training_process import TrainingProcesses
from tests.fixtures.training_runs import (
    assert_same_losses,
    is_trained,
    max_difference,
    short_run,
    write_splits,
)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("data") / "splits")


def run(splits: Path, base: Path, out: Path, *settings: str) -> Adapter:
    out.mkdir()
    return training.run(Splits.read(splits), short_run(base, *settings), out)


@pytest.fixture(scope="module")
def reference(splits: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of an uninterrupted run."""
    out = tmp_path_factory.mktemp("reference") / "model"
    run(splits, base, out)
    return out


def test_run_writes_adapter_report_and_page(reference: Path, base: Path) -> None:
    assert is_trained(reference)
    adapter = Adapter.read(reference)
    assert [loss.step for loss in adapter.losses] == [1, 2, 3, 4, 5, 6]
    assert all(loss.grad_norm and loss.learning_rate is not None for loss in adapter.losses)
    assert [loss.step for loss in adapter.validation_losses] == [6]
    assert (adapter.steps, adapter.examples) == (6, 40)
    assert adapter.examples_per_second == pytest.approx(24 / adapter.seconds)
    scorer = Scorer.load(reference, base=base)
    logs = scorer.log_probabilities(scorer.encode(["Oat Milk"]))
    assert np.exp(logs).sum() == pytest.approx(1.0)
    assert list((reference / "tensorboard").glob("events.out.tfevents.*"))
    assert not (reference / "checkpoints").exists()
    assert "<svg" in (reference / "loss.html").read_text()


def test_aisles_are_trained_and_scored(base: Path, tmp_path: Path) -> None:
    run(write_splits(tmp_path / "splits", aisles=True), base, tmp_path / "model")
    assert is_trained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "aisles.json").read_text()) == {
        label: list(aisles) for label, aisles in AISLES.items()
    }
    scorer = Scorer.load(tmp_path / "model", base=base)
    assert [aisle for _, aisle in scorer.leaves] == [a for each in AISLES.values() for a in each]
    logs = scorer.leaf_log_probabilities(scorer.encode(["Oat Milk"]), np.array([0]))
    assert logs.shape == (1, len(scorer.leaves))


def test_activation_checkpointing_keeps_the_losses(
    reference: Path, splits: Path, base: Path, tmp_path: Path
) -> None:
    adapter = run(splits, base, tmp_path / "model", "train.activation_checkpointing=true")
    assert_same_losses(adapter, reference, 5e-3)


def test_bfloat16_trains_to_similar_losses(
    reference: Path, splits: Path, base: Path, tmp_path: Path
) -> None:
    adapter = run(splits, base, tmp_path / "model", "base.compute_dtype=bfloat16")
    assert adapter.compute_dtype.startswith("bfloat16")
    assert is_trained(tmp_path / "model")
    assert max_difference(reference, tmp_path / "model") > 0
    assert_same_losses(adapter, reference, 0.1)


def test_padded_batches_equal_packed_batches(
    splits: Path, base: Path, tmp_path: Path, reference: Path
) -> None:
    adapter = run(splits, base, tmp_path / "padded", "train.packing=false")
    assert_same_losses(adapter, reference, 1e-4)
    assert max_difference(reference, tmp_path / "padded") < 1e-3
    (expected,) = Adapter.read(reference).validation_losses
    assert adapter.validation_losses[0].loss == pytest.approx(expected.loss, abs=1e-4)


def test_gradient_accumulation_equals_one_large_batch(
    splits: Path, base: Path, tmp_path: Path, reference: Path
) -> None:
    settings = ("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=2")
    run(splits, base, tmp_path / "accumulated", *settings)
    assert max_difference(reference, tmp_path / "accumulated") < 1e-3


def test_group_by_length_trains_on_padded_batches(splits: Path, base: Path, tmp_path: Path) -> None:
    settings = ("train.packing=false", "train.group_by_length=true")
    assert run(splits, base, tmp_path / "grouped", *settings).steps == 6
    with pytest.raises(ConfigError, match=r"train\.group_by_length"):
        short_run(base, "train.group_by_length=true")


class Command:
    """`python -m grocer.training.distributed` on the splits as an artifact."""

    def __init__(self, splits: Path, base: Path, root: Path, *settings: str) -> None:
        self.model, self.root = root / "model", root
        (root / "config.json").write_text(short_run(base, *settings).to_json())
        with step("build_dataset", root / "splits") as part:
            for path in splits.iterdir():
                (part / path.name).write_bytes(path.read_bytes())
        self.arguments = [root / "splits", root / "config.json", self.model]

    def run(self, processes: TrainingProcesses) -> str:
        """Train, and return the output."""
        log = self.root / "log"
        code = processes.exit_code(processes.start(self.arguments, log))
        assert code == 0, log.read_text()
        return log.read_text()

    def interrupt(
        self, processes: TrainingProcesses, at_step: int, signal_number: signal.Signals
    ) -> tuple[int, str]:
        """Start the command and send a signal in one step; return exit code and output."""
        log = self.root / "interrupted.log"
        log.touch()
        process = processes.start(self.arguments, log, pause_at=at_step)
        while f"at step {at_step}" not in log.read_text():
            assert Path(f"/proc/{process}/exe").exists(), log.read_text()
            time.sleep(0.02)
        os.kill(process, signal_number)
        return processes.exit_code(process), log.read_text()


def test_killed_run_resumes_to_the_same_weights(
    processes: TrainingProcesses, reference: Path, splits: Path, base: Path, tmp_path: Path
) -> None:
    """SIGKILL in a random step, and the newest checkpoint is corrupt too."""
    root = tmp_path / "checkpoints"
    settings = (f"train.checkpoints={root}", "train.save_steps=1")
    command = Command(splits, base, tmp_path, *settings)
    killed_at = random.randint(4, 6)
    print("killed in step", killed_at)
    code, output = command.interrupt(processes, killed_at, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert not command.model.exists()
    newest = max(path.parent for path in root.glob("*/checkpoint-*/whole.json"))
    step = int(newest.name.removeprefix("checkpoint-"))
    assert step in (killed_at - 2, killed_at - 1)  # the last copy may not be complete
    (newest / "optimizer.pt").write_bytes(b"corrupt")

    resumed = command.run(processes)
    assert re.search(r"incomplete checkpoint .*optimizer\.pt", resumed)
    assert f"resuming from checkpoint-{step - 1}\n" in resumed
    adapter = Adapter.read(command.model)
    assert adapter.resumed_from_step == step - 1
    assert [loss.step for loss in adapter.losses] == [1, 2, 3, 4, 5, 6]
    assert max_difference(reference, command.model) == 0.0


def test_sigterm_saves_a_checkpoint_to_resume_from(
    processes: TrainingProcesses, reference: Path, splits: Path, base: Path, tmp_path: Path
) -> None:
    settings = (f"train.checkpoints={tmp_path / 'checkpoints'}", "train.save_steps=100")
    command = Command(splits, base, tmp_path, *settings)
    code, output = command.interrupt(processes, 4, signal.SIGTERM)
    assert code == StoppedError.exit_code, output
    assert "grocer: stopped by SIGTERM at step 4 of 6" in output
    assert run(splits, base, tmp_path / "resumed", *settings).resumed_from_step == 4
    assert max_difference(reference, tmp_path / "resumed") == 0.0


def test_only_the_same_run_resumes(splits: Path, base: Path, tmp_path: Path) -> None:
    root = f"train.checkpoints={tmp_path / 'checkpoints'}"
    run(splits, base, tmp_path / "one", root)
    assert run(splits, base, tmp_path / "same", root).resumed_from_step == 6
    assert run(splits, base, tmp_path / "rank", root, "lora.r=2").resumed_from_step == 0
    other = write_splits(tmp_path / "splits", count=36)
    assert run(other, base, tmp_path / "data", root).resumed_from_step == 0
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_nan_or_inf_stops_training(splits: Path, base: Path, tmp_path: Path) -> None:
    settings = ("train.learning_rate=1e30", "train.warmup_steps=0", "train.max_grad_norm=1e30")
    with pytest.raises(TrainingError, match=r"step \d: the (loss|gradient norm) is (nan|inf)"):
        run(splits, base, tmp_path / "diverging", *settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_rejected(splits: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no CUDA device is visible"):
        run(splits, base, tmp_path / "gpu", "base.device=cuda")


def test_tokenizer_of_another_model_is_rejected(splits: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "copy")
    larger = load_tokenizer(base)
    larger.add_tokens(["unknown to the base"])
    larger.save_pretrained(tmp_path / "copy")
    with pytest.raises(ModelError, match=r"vocabulary has [\d,]+: it belongs to another model"):
        run(splits, tmp_path / "copy", tmp_path / "model")


def test_base_on_which_packing_is_not_exact_is_rejected(
    splits: Path, base: Path, tmp_path: Path
) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = load_tokenizer(base)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, initializer_range=0.2, sliding_window=8,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match="packed products other probabilities"):
        run(splits, tmp_path / "base", tmp_path / "out", "train.packing=false")
    assert not (tmp_path / "out" / "adapter").exists()


def test_missing_mlflow_package_is_reported(
    splits: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    monkeypatch.setattr("transformers.integrations.is_mlflow_available", lambda: False)
    run(splits, base, tmp_path / "model", "train.max_steps=1")
    assert "the package mlflow is not installed" in capsys.readouterr().out


def test_losses_and_parameters_are_logged_to_mlflow(
    splits: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "departments")
    run(splits, base, tmp_path / "model", "train.max_steps=2", "train.logging_steps=1")
    client = mlflow.MlflowClient((tmp_path / "runs").as_uri())
    experiment = client.get_experiment_by_name("departments")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert len(client.get_metric_history(logged.info.run_id, "loss")) == 2
    assert logged.data.params["learning_rate"]


def test_processes_with_different_bases_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(digests: list[str], own: str) -> None:
        digests[:] = [own, others]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    identity = {"base": {"source": "tiny", "digest": "a"}}
    others = json_digest(identity)
    training._require_same(identity, 2)
    others = json_digest({"base": {"source": "tiny", "digest": "b"}})
    with pytest.raises(ModelError, match="nodes of one type"):
        training._require_same(identity, 2)
