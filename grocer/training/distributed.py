"""Data-parallel training in several processes, one per GPU.

    python -m grocer.training.distributed SPLITS CONFIG.json OUT

starts `train.processes_per_node` processes on this machine. Under torchrun, which starts them
itself, the command is one of its processes. In a pod of a TrainJob, `grocer.training.node` starts
them.

Each GPU holds a 4-bit copy of the base and processes its share of each batch; gradients are
averaged. The effective batch size is `per_device_train_batch_size` ×
`gradient_accumulation_steps` × processes. The first process writes the same artifact as the
pipeline's train step. CONFIG.json is the resolved configuration that `grocer run` saves.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from grocer import events
from grocer.artifacts.splits import Splits
from grocer.artifacts.step import step
from grocer.config.run import RunConfig
from grocer.errors import GrocerError
from grocer.training import run as training

START_METHOD = "spawn"  # as CUDA requires
_GRACE_SECONDS = 90.0
"""How long the other processes may take to end after one has failed: they may be publishing a
checkpoint. Less than the grace period of the TrainJob's pods."""


@dataclass(frozen=True)
class Node:
    """A machine's place among those that train together."""

    processes: int
    """Processes on each machine."""
    rank: int = 0
    count: int = 1
    address: str = "127.0.0.1"
    """Host name of the first machine."""
    port: int = 0
    """Port on the first machine; 0: any free one of this machine."""

    def environment(self, local_rank: int) -> dict[str, str]:
        """Return the variables of torch.distributed for a process of this machine."""
        values = {
            "RANK": self.rank * self.processes + local_rank,
            "LOCAL_RANK": local_rank,
            "WORLD_SIZE": self.count * self.processes,
            "LOCAL_WORLD_SIZE": self.processes,
            "MASTER_ADDR": self.address,
            "MASTER_PORT": self.port,
        }
        return {name: str(value) for name, value in values.items()}


def start(splits: Path, config: RunConfig, out: Path, node: Node) -> int:
    """Train in the processes of one machine, and wait for them.

    SIGTERM is passed on to them.

    Returns:
        0, or the exit code of the process that failed first; 1 if a signal ended it.
    """
    if not node.port:
        node = Node(node.processes, port=_free_port())
    context: Any = start_processes(  # type: ignore[no-untyped-call]
        _process, (node, splits, config, out), node.processes, join=False, start_method=START_METHOD
    )
    previous = signal.signal(
        signal.SIGTERM, lambda *_: [process.terminate() for process in context.processes]
    )
    try:
        while not context.join(grace_period=_GRACE_SECONDS):
            pass
    except ProcessExitedException as error:
        return max(error.exit_code, 1)
    except ProcessRaisedException as error:
        print(error.msg, file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _process(local_rank: int, node: Node, splits: Path, config: RunConfig, out: Path) -> None:
    os.environ.update(node.environment(local_rank))
    with user_errors():
        launch(splits, config, out)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Print a user error in one line, and exit with its code."""
    try:
        yield
    except GrocerError as error:
        print(f"grocer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def launch(splits: Path, config: RunConfig, out: Path) -> None:
    """Train as one process of a group; the first one writes the artifact `out`.

    Raises:
        GrocerError: as `grocer.training.run.run`, or `out` already exists.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        with step("train", out, {"splits": splits}) as part:
            training.run(Splits.read(splits), config, part)
        return
    # The other processes write the same files; theirs are discarded, as are output and events.
    os.environ.pop(events.VARIABLE, None)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Path(os.devnull).open("w") as null,
        contextlib.redirect_stdout(null),
    ):
        training.run(Splits.read(splits), config, Path(scratch))


def main() -> None:
    """Run the command line; a user error exits with code 2."""
    if len(sys.argv) != 4:
        sys.exit("usage: python -m grocer.training.distributed SPLITS CONFIG.json OUT")
    splits, path, out = map(Path, sys.argv[1:])
    with user_errors():
        config = RunConfig.from_json(path.read_text())
        processes = config.train.processes_per_node
        if "RANK" in os.environ or processes == 1:
            launch(splits, config, out)
        else:
            sys.exit(start(splits, config, out, Node(processes)))


if __name__ == "__main__":
    main()
