"""Checkpoints are published while training continues, one at a time."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grocer.errors import OutputError
from grocer.training.callbacks import CheckpointPublisher


class SlowCheckpoints:
    """Publishes a checkpoint once `finish` is set; the names of `failing` raise an error."""

    def __init__(self, *failing: str) -> None:
        self.finish, self.failing = threading.Event(), failing
        self.started: list[str] = []
        self.running = self.most_running = 0

    def publish(self, checkpoint: Path) -> str:
        self.started.append(checkpoint.name)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.finish.wait(timeout=60)
        self.running -= 1
        if checkpoint.name in self.failing:
            raise OutputError("no space")
        return f"s3://copies/{checkpoint.name}"


def save(publisher: CheckpointPublisher, step: int) -> None:
    publisher.on_save(SimpleNamespace(output_dir="out", world_size=1), state(step), None)


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, is_world_process_zero=True)


def test_copies_are_made_one_after_the_other() -> None:
    checkpoints = SlowCheckpoints()
    publisher = CheckpointPublisher(checkpoints)
    save(publisher, 1)  # returns although the copy is not complete
    assert publisher.published is None
    second = threading.Thread(target=save, args=(publisher, 2))
    second.start()
    second.join(timeout=0.1)
    assert second.is_alive()  # waits for the first copy
    checkpoints.finish.set()
    second.join()
    publisher.on_train_end(None, state(2), None)
    assert checkpoints.started == ["checkpoint-1", "checkpoint-2"]
    assert checkpoints.most_running == 1
    assert publisher.published == "s3://copies/checkpoint-2"


def test_failed_copy_does_not_stop_training(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = SlowCheckpoints("checkpoint-2")
    checkpoints.finish.set()
    publisher = CheckpointPublisher(checkpoints)
    save(publisher, 1)
    save(publisher, 2)
    publisher.on_train_end(None, state(2), None)
    assert publisher.published == "s3://copies/checkpoint-1"
    assert "step 2: checkpoint not published: no space" in capsys.readouterr().out
