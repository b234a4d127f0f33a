"""What happens around training: progress for a person, checkpoints for the next attempt."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grocer.artifacts.step import peak_rss_mb
from grocer.errors import OutputError, TrainingError
from grocer.progress import Ticker, say
from grocer.training.checkpoints import Checkpoints


class Progress(TrainerCallback):  # type: ignore[misc]
    """Says how far training has come: time left, loss, products a second, memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.begun = 0
        self._ticker: Ticker | None = None
        self._loss = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.begun = state.global_step
        self._started = time.monotonic()
        self._batch = (
            args.train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
        )
        self._ticker = Ticker("train", state.max_steps, "steps", begun=self.begun)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        assert self._ticker is not None
        seconds = max(time.monotonic() - self._started, 1e-9)
        speed = (state.global_step - self.begun) * self._batch / seconds
        memory, _of = peak_memory(self.device)
        if state.is_world_process_zero:
            self._ticker.at(
                state.global_step,
                f"{self._loss}{speed:,.0f} products/s · {memory:,.0f} MiB at most",
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f} · "


def peak_memory(device: str) -> tuple[float, str]:
    """Peak memory so far, in MiB, and of what."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20, "GPU"
    return peak_rss_mb(), "process"


class Preemption(TrainerCallback):  # type: ignore[misc]
    """Publishes each checkpoint that the Trainer saves; on SIGTERM asks for one and stops.

    All processes of a run stop at the same step, whichever of them was told.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.stopped = False
        self.published: str | None = None
        self._told = False
        self._before: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # Only a main thread may take signals; elsewhere the last checkpoint must do.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._tell)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._any_told(args) and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        _gather_random_states(args, checkpoint)
        if not state.is_world_process_zero:
            return
        try:
            self.published = self.checkpoints.publish(checkpoint)
        except OutputError as error:
            # Hours of training are worth more than one copy; the next save tries again.
            say("train", f"step {state.global_step}: no checkpoint this time: {error}")
        else:
            if self.stopped:
                say("train", f"SIGTERM: checkpoint of step {state.global_step} written")

    def _tell(self, *_: Any) -> None:
        self._told = True

    def _any_told(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self._told
        told = torch.tensor(float(self._told), device=args.device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
        return bool(told.item())


def _gather_random_states(args: TrainingArguments, checkpoint: Path) -> None:
    """Bring the random state that each process saved in its own directory to the first's."""
    if args.world_size == 1:
        return
    own = checkpoint / f"rng_state_{args.process_index}.pth"
    states: list[Any] = [None] * args.world_size
    torch.distributed.all_gather_object(states, (own.name, own.read_bytes()))
    if args.process_index == 0:
        for name, content in states:
            (checkpoint / name).write_bytes(content)


def watchers(events: Path) -> list[TrainerCallback]:
    """TensorBoard's event files, and MLflow where `MLFLOW_TRACKING_URI` is set.

    Raises:
        TrainingError: MLflow does not answer there.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import (
        MLflowCallback,
        TensorBoardCallback,
        is_mlflow_available,
    )

    found: list[TrainerCallback] = [TensorBoardCallback(SummaryWriter(str(events)))]
    say("train", f"watch it: tensorboard --logdir {events}")
    if os.environ.get("MLFLOW_TRACKING_URI"):
        if is_mlflow_available():
            _require_mlflow(os.environ["MLFLOW_TRACKING_URI"])
            found.append(MLflowCallback())
        else:
            say("train", "MLFLOW_TRACKING_URI is set, but the package mlflow is not installed")
    return found


def _require_mlflow(uri: str) -> None:
    import mlflow

    try:
        mlflow.search_experiments(max_results=1)
    except mlflow.exceptions.MlflowException as error:
        raise TrainingError(
            f"MLFLOW_TRACKING_URI={uri}: {error}; mend it, or unset it to train without MLflow"
        ) from error
    say("train", f"logging to MLflow at {uri}")
