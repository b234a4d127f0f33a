"""A node of a TrainJob: processes over gloo, with a directory in place of the object store."""

import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.splits import Splits
from grocer.artifacts.step import digest_of, record_of, recorded, verified_files
from grocer.errors import ArtifactError, StoppedError
from grocer.io.storage import Storage
from grocer.io.trees import get_tree, put_tree
from grocer.training import distributed, node
from grocer.training import run as training
from grocer.training.distributed import Node, launch, user_errors
from tests.fixtures.ports import free_port
from tests.fixtures.training_process import TrainingProcesses
from tests.fixtures.training_runs import assert_same_losses, short_run, write_splits


class Exchange:
    """What the train step and a node exchange through the store."""

    def __init__(self, root: Path, base: Path, *settings: str) -> None:
        self.root, self.splits = root, root / "splits"
        self.storage = Storage(str(root / "store"), setting="test")
        written = write_splits(root / "written")
        with recorded("build_dataset", self.splits) as part:
            for path in written.iterdir():
                path.rename(part / path.name)
        self.config = short_run(base, *settings)
        put_tree(self.splits, self.storage, "splits")
        self.storage.write_bytes(self.config.to_json().encode(), "config.json")

    def model(self) -> Path:
        """Return the artifact that the node has put into the store, after verifying it."""
        model = self.root / "model"
        assert get_tree(self.storage, "model", model) is None
        verified_files(model)
        assert record_of(model)["inputs"] == {"splits": digest_of(self.splits)}
        return model

    def train_here(self, base: Path, *settings: str) -> Path:
        """Train on the same splits in this process, and return the artifact."""
        out = self.root / "reference"
        out.mkdir()
        training.run(Splits.read(self.splits), short_run(base, *settings), out)
        return out


def start_node(
    processes: TrainingProcesses, root: Path, count: int = 2, shards: Path | None = None
) -> int:
    """Start the command with the variables that Kubeflow Trainer sets."""
    variables = {
        "PET_NNODES": "1",
        "PET_NODE_RANK": "0",
        "PET_NPROC_PER_NODE": str(count),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(free_port()),
    }
    arguments = [root / "store"]
    return processes.start(arguments, root / "log", module="node", shards=shards, **variables)


def test_two_processes_equal_one_at_the_same_effective_batch(
    processes: TrainingProcesses, base: Path, tmp_path: Path
) -> None:
    exchange = Exchange(tmp_path, base, "train.per_device_train_batch_size=2")
    code = processes.exit_code(start_node(processes, tmp_path))
    assert code == 0, (tmp_path / "log").read_text()
    model = exchange.model()
    reference = exchange.train_here(base)
    adapter, expected = Adapter.read(model), Adapter.read(reference)
    assert (adapter.processes, expected.processes) == (2, 1)
    # Rounding differs between packs of other sizes, and Adam amplifies it from step to step.
    assert_same_losses(adapter, reference, 1e-3)
    assert adapter.losses[0].loss == pytest.approx(expected.losses[0].loss, abs=1e-5)


def test_sigterm_stops_all_processes_with_a_checkpoint(
    processes: TrainingProcesses, base: Path, tmp_path: Path
) -> None:
    kept, log = tmp_path / "kept", tmp_path / "log"
    settings = ("train.max_steps=100000", "train.save_steps=100000", f"train.checkpoints={kept}")
    Exchange(tmp_path, base, *settings)
    log.touch()
    process = start_node(processes, tmp_path)
    while "/100,000 steps" not in log.read_text():
        assert Path(f"/proc/{process}/exe").exists(), log.read_text()
        time.sleep(0.1)
    os.kill(process, signal.SIGTERM)
    assert processes.exit_code(process) == StoppedError.exit_code, log.read_text()
    assert "stopped by SIGTERM" in log.read_text()
    assert list(kept.glob("*/checkpoint-*/whole.json"))


def test_user_error_has_its_exit_code(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = Exchange(tmp_path, base, "train.max_length=2")
    with pytest.raises(SystemExit, match="2"), user_errors():
        launch(exchange.splits, exchange.config, tmp_path / "model")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "train.max_length" in line


def test_arguments_of_a_process_are_picklable(base: Path) -> None:
    """Outside of tests, processes are spawned and not forked."""
    arguments = Node(2), Path("splits"), short_run(base), Path("out")
    assert pickle.loads(pickle.dumps(arguments)) == arguments
    assert distributed.START_METHOD == "spawn"


def test_missing_splits_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        node.train(str(tmp_path / "store"), Node(2))
