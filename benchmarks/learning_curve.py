"""Accuracy by number of labels: which classifier is the best one with how many labels.

    .venv/bin/python benchmarks/learning_curve.py
    .venv/bin/python benchmarks/learning_curve.py --data DIRECTORY --sizes 200 500 5000 all \\
        --set train.num_train_epochs=6 --page curve.html
    .venv/bin/python benchmarks/learning_curve.py --sizes --page curve.html   # page only
    .venv/bin/python benchmarks/learning_curve.py --sizes --plot curve.svg    # plot only

A cell trains and measures all classifiers with *n labels*, as the stages train and evaluate do. n
counts every label that a classifier sees: 90 % are training products; 10 %, but at least 50, are
validation products, on which the linear model's C, the calibration, and the weights of ensemble and
cascade are fitted. Both are the first rows of one random permutation per seed of that side of the
split, so smaller samples are part of larger ones. `all` is the whole training side with a ninth as
many validation products. The test products are the same in all cells; nothing is chosen on them.

Each finished cell is a line of OUT/cells.jsonl; an interrupted run continues with the next cell.
Other settings make another cell. If a size has several settings, the page shows those with the
lowest log-loss of the ensemble on the validation products. The last line is one JSON object:
`ratio` is the log-loss of the linear model over that of the ensemble, the mean of the page's cells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bases import CATALOGUE
from benchmarks.learning_curve_cell import Cell, measure, sample_sizes
from benchmarks.learning_curve_page import accuracy_svg, learning_curve_page, loss_ratio
from grocer.artifacts.counts import Counts
from grocer.artifacts.splits import Splits
from grocer.artifacts.step import step
from grocer.config.recipes import RECIPES, recipe
from grocer.config.run import RunConfig
from grocer.dataset import run as dataset
from grocer.errors import GrocerError
from grocer.ingest import run as ingest
from grocer.io.atomic import json_digest, output_file
from grocer.progress import say

SIZES = ("200", "500", "1000", "2000", "all")
MOST_WITH_SEEDS = 5000
"""Larger sizes are measured with one seed only."""
CELLS = "cells.jsonl"
OUT = Path("build/learning_curve")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=str(CATALOGUE), help="catalogue, as for `grocer run`")
    parser.add_argument("--out", type=Path, default=OUT, help="directory of cells and splits")
    parser.add_argument(
        "--sizes", nargs="*", default=SIZES, help="numbers of labels, or `all`; none: only the page"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help=f"seeds up to {MOST_WITH_SEEDS:,} labels; one above"
    )
    parser.add_argument("--recipe", choices=RECIPES, default="smollm2")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--test", type=int, help="maximum test products, a random sample")
    parser.add_argument("--page", type=Path, help="HTML file to write")
    parser.add_argument("--plot", type=Path, help="SVG file to write: the accuracy by labels")
    options = parser.parse_args()
    try:
        if options.sizes:
            config = recipe(options.recipe).with_settings(options.set)
            run(options.data, config, options.out, options.sizes, options.seeds, options.test)
        cells = read_cells(options.out / CELLS)
        for path, render in ((options.page, learning_curve_page), (options.plot, accuracy_svg)):
            if path:
                with output_file(path) as part:
                    part.write_text(render(cells), encoding="utf-8")
                say("benchmark", f"written: {path}")
        print(json.dumps({"ratio": loss_ratio(cells)}))
    except GrocerError as error:
        parser.error(str(error))


def run(
    data: str,
    config: RunConfig,
    out: Path,
    sizes: Sequence[str],
    seeds: int,
    test: int | None = None,
) -> None:
    """Measure all cells that are not finished; append each to `out`/cells.jsonl.

    Raises:
        GrocerError: a size is not a number or too large, or a stage failed.
    """
    splits = prepare(data, config, out)
    cells = list(plan(splits, config, sizes, seeds, test))
    path = out / CELLS
    finished = {cell["key"] for cell in read_cells(path)} if path.exists() else set()
    for number, cell in enumerate(cells, 1):
        state = "is finished" if cell.key in finished else "starts"
        where = f"cell {number} of {len(cells)}"
        say("benchmark", f"{where}: {cell.labels:,} labels, seed {cell.seed}: {state}")
        if cell.key not in finished:
            append_cell(path, measure(cell, splits, config, out))


def prepare(data: str, config: RunConfig, out: Path) -> Splits:
    """Return the splits of the catalogue; ingest and split it if that is not done yet."""
    sections = ("data", "catalogue", "split", "prompt")
    settings = config.model_dump(mode="json", include=set(sections))
    place = out / f"splits-{json_digest([os.path.abspath(data), settings])[:8]}"
    tables, splits = place / "tables", place / "splits"
    if not tables.is_dir():
        with step("ingest", tables) as part:
            ingest.run(data, config.data, part)
    if not splits.is_dir():
        with step("build_dataset", splits, {"tables": tables}) as part:
            dataset.run(Counts.read(tables), config, part)
    return Splits.read(splits)


def plan(
    splits: Splits, config: RunConfig, sizes: Sequence[str], seeds: int, test: int | None
) -> Iterator[Cell]:
    """Yield the cells of all sizes and seeds, in ascending order of labels."""
    counts = [sample_sizes(size, splits) for size in sizes]
    for training, validation in sorted(counts):
        labels = training + validation
        for seed in range(seeds if labels <= MOST_WITH_SEEDS else 1):
            yield Cell(
                training=training,
                validation=validation,
                seed=seed,
                test=min(test or splits.products.test, splits.products.test),
                settings=settings_of(config),
                splits=json_digest(splits.digests.model_dump()),
            )


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the settings that determine the result of a cell, by dotted key."""
    ignored = {"checkpoints", "force", "save_steps", "logging_steps"}
    sections = ["prompt", "base", "lora", "train"]
    if config.base.source == "tiny":
        sections.append("tiny")
    tree = config.model_dump(mode="json", include=set(sections))
    return {
        f"{section}.{key}": value
        for section in sections
        for key, value in tree[section].items()
        if key not in ignored
    }


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the finished cells; a line that was cut off is skipped.

    Raises:
        GrocerError: there is no file.
    """
    if not path.is_file():
        raise GrocerError(f"{path}: file not found; measure cells first (--sizes)")
    cells = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            cells.append(json.loads(line))
        except json.JSONDecodeError:
            say("benchmark", f"{path}: skipping an incomplete line")
    return cells


def append_cell(path: Path, cell: dict[str, Any]) -> None:
    """Append a finished cell as a new line."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    start = "" if text == "" or text.endswith("\n") else "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{start}{json.dumps(cell, allow_nan=False)}\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
