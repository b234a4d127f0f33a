"""Data-parallel training on several GPUs; torchrun starts this module once per GPU.

    torchrun --nproc-per-node 2 -m grocer.training.distributed SPLITS CONFIG.json OUT

Each GPU holds a 4-bit copy of the base and processes its share of each batch; gradients are
averaged. The effective batch size is `per_device_train_batch_size` ×
`gradient_accumulation_steps` × GPUs. The first process writes the same artifact as the pipeline's
train step. CONFIG.json is the resolved configuration that `grocer run` saves. Without torchrun
this is one process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from grocer.artifacts.splits import Splits
from grocer.artifacts.step import step
from grocer.config.run import RunConfig
from grocer.errors import GrocerError
from grocer.training import run as training


def launch(splits: Path, config: RunConfig, out: Path) -> None:
    """Train as one process of a group; the first one writes the artifact `out`.

    Raises:
        GrocerError: as `grocer.training.run.run`, or `out` already exists.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        with step("train", out, {"splits": splits}) as part:
            training.run(Splits.read(splits), config, part)
        return
    # The other processes write the same files; theirs are discarded, as is their output.
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
    splits, config, out = map(Path, sys.argv[1:])
    try:
        launch(splits, RunConfig.from_json(config.read_text()), out)
    except GrocerError as error:
        print(f"grocer: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
