"""Protects training as a step: what it writes, and that an interrupted run ends as a whole one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grocer.artifacts.step import step
from grocer.config.stages import PromptConfig
from grocer.errors import ConfigError, ModelError, TrainingError
from grocer.inference.scorer import Scorer
from grocer.model.base import copy_base
from grocer.model.prompt_template import template
from grocer.model.tiny_llama import make_tokenizer
from grocer.training import run as train
from tests.fixtures.tiny_model import AISLES, LABELS
from tests.fixtures.training_runs import difference, lesson, levelled, moved, splits


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return splits(tmp_path_factory.mktemp("lessons") / "splits")


def run(source: Path, base: Path, out: Path, *settings: str) -> dict[str, object]:
    out.mkdir()
    return train.train(source, lesson(base, *settings), out).model_dump()


@pytest.fixture(scope="module")
def whole(source: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "model"
    run(source, base, out)
    return out


def test_writes_an_adapter_that_scores(whole: Path, base: Path) -> None:
    assert moved(whole)
    report = json.loads((whole / "training.json").read_text())
    assert [entry["step"] for entry in report["losses"]] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "grad_norm", "learning_rate"} <= set(entry) for entry in report["losses"])
    assert [entry["step"] for entry in report["validation_losses"]] == [6]
    assert report["steps"] == 6
    assert report["cost"] is None
    assert report["examples_per_second"] == pytest.approx(24 / report["seconds"])
    assert Scorer.load(whole, base=base).predict(["Oat Milk"]).probabilities.sum() == pytest.approx(
        1.0
    )
    assert list((whole / "tensorboard").glob("events.out.tfevents.*"))
    assert not (whole / "checkpoints").exists()
    page = (whole / "loss.html").read_text()
    assert "<svg" in page
    assert "default-src 'none'" in page
    assert not re.search(r"<script|\ssrc=|\shref=\"http", page)


def test_aisles_are_learnt_and_scored(base: Path, tmp_path: Path) -> None:
    run(levelled(tmp_path / "splits"), base, tmp_path / "model")
    assert moved(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "aisles.json").read_text()) == {
        label: list(aisles) for label, aisles in AISLES.items()
    }
    found = Scorer.load(tmp_path / "model", base=base)
    assert [aisle for _, aisle in found.leaves] == [a for each in AISLES.values() for a in each]
    scores = found.predict(["Oat Milk"])
    assert scores.probabilities.sum() == pytest.approx(1.0)
    assert scores.leaf_probabilities.shape == (1, len(found.leaves))


def test_the_same_run_gives_the_same_adapter(
    whole: Path, source: Path, base: Path, tmp_path: Path
) -> None:
    run(source, base, tmp_path / "again")
    assert difference(whole, tmp_path / "again") == 0.0


@pytest.mark.parametrize("setting", ["train.activation_checkpointing=true", "train.precision=bf16"])
def test_recomputing_and_half_precision_learn_the_same(
    whole: Path, source: Path, base: Path, tmp_path: Path, setting: str
) -> None:
    report = run(source, base, tmp_path / "other", setting)
    expected = json.loads((whole / "training.json").read_text())["losses"]
    for found, wanted in zip(report["losses"], expected, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=5e-3)


def test_plain_batches_learn_the_same(
    source: Path, base: Path, tmp_path: Path, whole: Path
) -> None:
    report = run(source, base, tmp_path / "plain", "train.packing=false")
    expected = json.loads((whole / "training.json").read_text())["losses"]
    for found, wanted in zip(report["losses"], expected, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-4)
    assert difference(whole, tmp_path / "plain") < 1e-3
    (wanted,) = json.loads((whole / "training.json").read_text())["validation_losses"]
    assert report["validation_losses"][0]["loss"] == pytest.approx(wanted["loss"], abs=1e-4)


def test_accumulated_batches_weigh_tokens_as_one_batch(
    source: Path, base: Path, tmp_path: Path, whole: Path
) -> None:
    settings = ("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=2")
    run(source, base, tmp_path / "halves", *settings)
    assert difference(whole, tmp_path / "halves") < 1e-3


def test_group_by_length_orders_padded_batches(source: Path, base: Path, tmp_path: Path) -> None:
    settings = ("train.packing=false", "train.group_by_length=true")
    report = run(source, base, tmp_path / "grouped", *settings)
    assert report["steps"] == 6
    with pytest.raises(ConfigError, match=r"group_by_length has no use with train.packing"):
        lesson(base, "train.group_by_length=true")


def command(source: Path, config: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "grocer.training.distributed", str(source), str(config), str(out)]


def artifact(source: Path, at: Path) -> Path:
    """The splits as the build_dataset step's artifact."""
    with step("build_dataset", at) as part:
        for path in source.iterdir():
            (part / path.name).write_bytes(path.read_bytes())
    return at


def interrupted(command: list[str], at_step: int, how: signal.Signals) -> tuple[int, str]:
    """Start a run, and send a signal once it has come to a step."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GROCER_TEST_PAUSE": str(at_step)}
    process = subprocess.Popen(
        [command[0], "-c", PAUSING, *command[3:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f"at step {at_step}"):
            process.send_signal(how)
    return process.wait(), "".join(lines)


# The command with a pause in the middle of a step, after its backward pass.
PAUSING = """
import os, sys, time
from grocer.training import distributed, trainer

def training_step(self, *rest, _super=trainer.GuardedTrainer.training_step, **named):
    loss = _super(self, *rest, **named)
    if self.state.global_step + 1 == int(os.environ["GROCER_TEST_PAUSE"]):
        print(f"at step {self.state.global_step + 1}", flush=True)
        time.sleep(0.5)
    return loss

trainer.GuardedTrainer.training_step = training_step
distributed.main()
"""


def test_a_killed_run_resumes_to_the_same_adapter(
    whole: Path, source: Path, base: Path, tmp_path: Path
) -> None:
    """kill -9 at a random step; the newest checkpoint torn as well; and still the same weights."""
    store = tmp_path / "outlives"
    config = lesson(base, f"train.checkpoints={store}", "train.save_steps=1")
    (tmp_path / "config.json").write_text(config.to_json())
    given = artifact(source, tmp_path / "splits")
    killed_at = random.randint(3, 6)
    print("killed at step", killed_at)
    again = command(given, tmp_path / "config.json", tmp_path / "model")
    code, output = interrupted(again, killed_at, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert not (tmp_path / "model").exists()
    (newest,) = store.glob(f"*/checkpoint-{killed_at - 1:06d}")
    (newest / "optimizer.pt").write_bytes(b"torn")

    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "it is torn (optimizer.pt is not what was written)" in done.stdout
    assert f"resuming from checkpoint-{killed_at - 2}\n" in done.stdout
    report = json.loads((tmp_path / "model" / "training.json").read_text())
    assert report["resumed_from_step"] == killed_at - 2
    assert [entry["step"] for entry in report["losses"]] == [1, 2, 3, 4, 5, 6]
    assert difference(whole, tmp_path / "model") == 0.0


def test_sigterm_writes_a_checkpoint_to_resume_from(
    whole: Path, source: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "outlives"
    config = lesson(base, f"train.checkpoints={store}", "train.save_steps=100")
    (tmp_path / "config.json").write_text(config.to_json())
    given = artifact(source, tmp_path / "splits")
    asked = command(given, tmp_path / "config.json", tmp_path / "model")
    code, output = interrupted(asked, 4, signal.SIGTERM)
    assert code == 2, output
    assert "grocer: stopped by SIGTERM at step 4 of 6" in output
    run(source, base, tmp_path / "resumed", f"train.checkpoints={store}", "train.save_steps=100")
    assert "resuming from checkpoint-4" in capsys.readouterr().out
    assert difference(whole, tmp_path / "resumed") == 0.0


def test_another_run_never_resumes_from_it(source: Path, base: Path, tmp_path: Path) -> None:
    store = f"train.checkpoints={tmp_path / 'outlives'}"
    run(source, base, tmp_path / "one", store)
    assert run(source, base, tmp_path / "same", store)["resumed_from_step"] == 6
    assert run(source, base, tmp_path / "two", store, "lora.r=2")["resumed_from_step"] == 0
    other = splits(tmp_path / "splits", count=36)
    assert run(other, base, tmp_path / "three", store)["resumed_from_step"] == 0
    assert len(list((tmp_path / "outlives").iterdir())) == 3


def test_a_loss_that_is_no_number_stops_the_run(source: Path, base: Path, tmp_path: Path) -> None:
    settings = ("train.learning_rate=1e30", "train.warmup_steps=0", "train.max_grad_norm=1e30")
    with pytest.raises(TrainingError, match=r"step \d: the (loss|gradient norm) is (nan|inf)"):
        run(source, base, tmp_path / "wild", *settings)


def test_too_long_products_are_refused_not_cut(source: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.max_length is 20; raise it"):
        run(source, base, tmp_path / "long", "train.max_length=20")


def test_a_recipe_for_a_gpu_needs_one(source: Path, base: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="no CUDA device is visible"):
        run(source, base, tmp_path / "gpu", "base.device=cuda")


def test_mlflow_without_its_package_is_said(
    source: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    monkeypatch.setattr("transformers.integrations.is_mlflow_available", lambda: False)
    run(source, base, tmp_path / "model", "train.max_steps=1")
    assert "the package mlflow is not installed" in capsys.readouterr().out


def test_a_run_is_logged_to_mlflow_where_it_is_named(
    source: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "departments")
    run(source, base, tmp_path / "model", "train.max_steps=2", "train.logging_steps=1")
    client = mlflow.MlflowClient((tmp_path / "runs").as_uri())
    experiment = client.get_experiment_by_name("departments")
    (found,) = client.search_runs([experiment.experiment_id])
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 2
    assert found.data.params["learning_rate"]


def test_a_tokenizer_of_another_model_is_refused(
    source: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_base(base, tmp_path / "copy")
    larger = make_tokenizer(["another catalogue"] * 9, template(PromptConfig()), LABELS, 900)
    larger.add_tokens([f"extra{number}" for number in range(400)])
    larger.save_pretrained(tmp_path / "copy")
    with pytest.raises(ModelError, match=r"the base knows 400: it is another model's"):
        run(source, tmp_path / "copy", tmp_path / "model")


def test_two_processes_are_one_at_the_same_global_batch(
    whole: Path, source: Path, base: Path, tmp_path: Path
) -> None:
    config = lesson(base, "train.per_device_train_batch_size=2")
    (tmp_path / "config.json").write_text(config.to_json())
    given = artifact(source, tmp_path / "splits")
    asked = command(given, tmp_path / "config.json", tmp_path / "model")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, *asked[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = json.loads((whole / "training.json").read_text())["losses"]
    report = json.loads((tmp_path / "model" / "training.json").read_text())
    assert report["processes"] == 2
    for found, wanted in zip(report["losses"], expected, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
    assert difference(whole, tmp_path / "model") < 1e-3
