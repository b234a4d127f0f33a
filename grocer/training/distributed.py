"""Train on several GPUs: torchrun starts this once for each, and the gradients are averaged.

    torchrun --nproc-per-node 2 -m grocer.training.distributed SPLITS CONFIG.json OUT

Data parallel: each GPU holds a 4-bit copy of the base and sees its share of each batch, so the
effective batch is `per_device_train_batch_size` × `gradient_accumulation_steps` × GPUs. The first
process writes the same artifact that the pipeline's train step writes. CONFIG.json is a run's
resolved configuration, as `grocer run` saves it. Started without torchrun it is one process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from grocer.artifacts.step import step
from grocer.config.run import RunConfig
from grocer.errors import GrocerError
from grocer.training import run as train


def launch(splits: Path, config: RunConfig, out: Path) -> None:
    """Train as one process of a group; the first one's output becomes the artifact `out`.

    Raises:
        GrocerError: as `grocer.train.train`, and where `out` exists already.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        with step("train", out, {"splits": splits}) as part:
            train.train(splits, config, part)
        return
    # What the others write is the same: they have it to themselves, and say nothing.
    with (
        tempfile.TemporaryDirectory() as scratch,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        train.train(splits, config, Path(scratch))


def main() -> None:
    """The command line; a user's mistake ends with exit code 2."""
    if len(sys.argv) != 4:
        sys.exit("usage: python -m grocer.training.distributed SPLITS CONFIG.json OUT")
    splits, settings, out = map(Path, sys.argv[1:])
    try:
        launch(splits, RunConfig.from_json(settings.read_text()), out)
    except GrocerError as error:
        print(f"grocer: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
