"""Trainer callbacks: progress, metric logging, and checkpoints on preemption."""

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from grocer.artifacts.step import peak_rss_mb
from grocer.errors import OutputError, TrainingError
from grocer.progress import Ticker, say
from grocer.training.checkpoints import Checkpoints


class Progress(TrainerCallback):  # type: ignore[misc]
    """Reports steps, time left, loss, products per second and peak memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.first_step = 0
        """Optimizer steps done before this process; above 0 after a resume."""
        self._loss = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first_step = state.global_step
        self._started = time.monotonic()
        self._batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._ticker = Ticker("train", state.max_steps, "steps", initial=self.first_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        speed = (state.global_step - self.first_step) * self._batch / seconds
        if state.is_world_process_zero:
            memory = f"peak memory {peak_memory(self.device)[0]:,.0f} MiB"
            products = f"{speed:,.{0 if speed >= 9.5 else 1}f} products/s"
            self._ticker.at(state.global_step, f"{self._loss}{products} · {memory}")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f} · "


def peak_memory(device: str) -> tuple[float, Literal["GPU", "process"]]:
    """Return the peak memory so far in MiB, and whether it is of the GPU or the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20, "GPU"
    return peak_rss_mb(), "process"


class CheckpointPublisher(TrainerCallback):  # type: ignore[misc]
    """Publishes each checkpoint; on SIGTERM saves one more and stops training.

    A checkpoint is copied while training continues; the next copy waits for the end of the one
    before. All processes of a run stop at the same step, whichever of them received the signal.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.stopped = False
        self.published: str | None = None
        """Address of the newest complete copy."""
        self._copier = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._copy: tuple[int, Future[str]] | None = None
        self._signalled = False
        self._previous_handler: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Only the main thread may install signal handlers.
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_signal)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._finish_copy()
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._any_signalled(args) and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        checkpoint = Path(args.output_dir) / f"checkpoint-{step}"
        _gather_random_states(args, checkpoint)
        if not state.is_world_process_zero:
            return
        self._finish_copy()
        self._copy = step, self._copier.submit(self.checkpoints.publish, checkpoint)

    def _finish_copy(self) -> None:
        """Wait until the copy in progress is complete, if there is one."""
        if self._copy is None:
            return
        (step, copy), self._copy = self._copy, None
        try:
            self.published = copy.result()
        except OutputError as error:
            # Training continues without this copy; the next save tries again.
            say("train", f"step {step}: checkpoint not published: {error}")
        else:
            if self.stopped:
                say("train", f"SIGTERM: checkpoint of step {step} written")

    def _on_signal(self, *_: Any) -> None:
        self._signalled = True

    def _any_signalled(self, args: Any) -> bool:
        if args.world_size == 1:
            return self._signalled
        signalled = torch.tensor(float(self._signalled), device=args.device)
        torch.distributed.all_reduce(signalled, op=torch.distributed.ReduceOp.MAX)
        return bool(signalled.item())


def _gather_random_states(args: Any, checkpoint: Path) -> None:
    """Copy the random state that each process saved to the first process's directory."""
    if args.world_size == 1:
        return
    path = checkpoint / f"rng_state_{args.process_index}.pth"
    states: list[Any] = [None] * args.world_size
    torch.distributed.all_gather_object(states, (path.name, path.read_bytes()))
    if args.process_index == 0:
        for name, content in states:
            (checkpoint / name).write_bytes(content)


def metric_loggers(events: Path) -> list[TrainerCallback]:
    """Return callbacks for TensorBoard and, if `MLFLOW_TRACKING_URI` is set, MLflow.

    Raises:
        TrainingError: the MLflow server does not respond.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import MLflowCallback, TensorBoardCallback, is_mlflow_available

    callbacks: list[TrainerCallback] = [TensorBoardCallback(SummaryWriter(str(events)))]
    say("train", f"live metrics: tensorboard --logdir {events}")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and not is_mlflow_available():
        say("train", "MLFLOW_TRACKING_URI is set, but the package mlflow is not installed")
    elif uri:
        import mlflow

        try:
            mlflow.search_experiments(max_results=1)
        except mlflow.exceptions.MlflowException as error:
            raise TrainingError(
                f"MLFLOW_TRACKING_URI={uri}: {error}; fix it, or unset it to train without MLflow"
            ) from error
        say("train", f"logging to MLflow at {uri}")
        callbacks.append(MLflowCallback())
    return callbacks
