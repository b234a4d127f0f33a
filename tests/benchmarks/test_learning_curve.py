"""The learning curve: cells, samples, resuming, and the statements on its page."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from benchmarks.bases import CATALOGUE
from benchmarks.learning_curve import append_cell, plan, read_cells, run, settings_of
from benchmarks.learning_curve_cell import sample, sample_sizes
from benchmarks.learning_curve_page import (
    accuracy_svg,
    learning_curve_page,
    loss_ratio,
    outcome,
    select,
)
from grocer.config.recipes import recipe
from grocer.errors import GrocerError
from tests.fixtures.stage_artifacts import SPLITS

PAIR = "ensemble linear"


def splits(train: int, validation: int) -> Any:
    products = SPLITS.products.model_copy(update={"train": train, "validation": validation})
    return SPLITS.model_copy(update={"products": products})


def cell(labels: int, seed: int = 0, *, gain: float = 0.1, p: float = 0.01, **settings: Any) -> Any:
    """Return a finished cell in which the ensemble is more accurate by `gain`."""
    config = recipe("smollm2").with_settings([f"train.{k}={v}" for k, v in settings.items()])
    metrics = {"macro_f1": 0.5, "log_loss": 1.0}
    accuracy = {"majority": 0.1, "linear": 0.5, "adapter": 0.5, "cascade": 0.5}
    accuracy["ensemble"] = 0.5 + gain
    classifiers = {
        name: {
            **metrics,
            "accuracy": value,
            "accuracy_low": value - 0.02,
            "accuracy_high": value + 0.02,
            "validation_log_loss": 1.0,
            "language_model_share": 0.4,
        }
        for name, value in accuracy.items()
    }
    classifiers["majority"]["log_loss"] = None
    test = {
        "accuracy": {"model_accuracy": 0.5 + gain, "baseline_accuracy": 0.5, "p_value": p},
        "log_loss": {"model_log_loss": 1.0 - gain, "baseline_log_loss": 1.0, "p_value": p},
    }
    return {
        "key": f"{labels} {seed} {settings}",
        "labels": labels,
        "training": labels - 50,
        "validation": 50,
        "seed": seed,
        "test": 300,
        "splits": "a",
        "settings": settings_of(config),
        "classifiers": classifiers,
        "tests": {PAIR: test},
        "selected": "ensemble",
        "adapter": {"seconds": 10.0, "epochs": 1.0},
    }


@pytest.mark.parametrize(
    ("size", "expected"), [("200", (150, 50)), ("1000", (900, 100)), ("all", (9_000, 1_000))]
)
def test_labels_include_validation_products(size: str, expected: tuple[int, int]) -> None:
    assert sample_sizes(size, splits(9_000, 2_000)) == expected


def test_validation_products_are_limited_by_their_side() -> None:
    assert sample_sizes("all", splits(9_000, 300)) == (9_000, 300)
    assert sample_sizes("2000", splits(9_000, 30)) == (1_970, 30)


@pytest.mark.parametrize("size", ["60", "5k", "-200", "9901"])
def test_size_that_cannot_be_sampled_is_rejected(size: str) -> None:
    with pytest.raises(GrocerError, match=size):
        sample_sizes(size, splits(9_000, 900))


def test_samples_of_one_seed_are_nested() -> None:
    table = pd.DataFrame({"product_id": range(500)})
    small, large = (sample(table, count, 3, 0)["product_id"] for count in (50, 200))
    assert set(small) < set(large)
    assert set(small) != set(sample(table, 50, 4, 0)["product_id"])


def test_large_sizes_have_one_seed() -> None:
    cells = list(plan(splits(9_000, 1_000), recipe("smollm2"), ["all", "500"], 3, None))
    assert [(each.labels, each.seed) for each in cells] == [
        *((500, seed) for seed in range(3)),
        (10_000, 0),
    ]
    assert len({each.key for each in cells}) == 4


def test_other_settings_are_another_cell() -> None:
    config = recipe("smollm2")
    other = config.with_settings(["train.num_train_epochs=9"])
    ignored = config.with_settings(["train.checkpoints=/tmp/x"])
    (key, different, same) = (
        next(plan(splits(900, 100), each, ["200"], 1, None)).key
        for each in (config, other, ignored)
    )
    assert key == same != different


def test_incomplete_line_is_skipped_and_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    append_cell(path, {"key": "a"})
    with path.open("a") as file:
        file.write('{"key": "b", "lab')
    append_cell(path, {"key": "c"})
    assert [each["key"] for each in read_cells(path)] == ["a", "c"]


def test_missing_cells_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(GrocerError, match=r"cells\.jsonl"):
        read_cells(tmp_path / "cells.jsonl")


def test_statement_follows_the_paired_tests() -> None:
    sizes = select(
        [
            cell(200, 0),
            cell(200, 1),
            cell(500, 0),
            cell(500, 1, p=0.2),  # not significant with every seed
            cell(1000, gain=-0.1),
            cell(2000, gain=-0.1),
        ]
    )
    text = outcome(sizes, PAIR, "accuracy")
    assert "significantly better at 200 labels" in text
    assert "no significant difference at 500 labels" in text
    assert "significantly worse from 1,000 labels on" in text
    assert [size.verdict(PAIR, "log_loss") for size in sizes] == ["better", "open"] + ["worse"] * 2


def test_settings_of_a_size_are_selected_on_validation_products() -> None:
    worse, better = cell(200, gain=0.3), cell(200, gain=0.1, num_train_epochs=9)
    better["classifiers"]["ensemble"]["validation_log_loss"] = 0.9
    (size,) = select([worse, better])
    assert size.cells == [better]
    assert size.candidates == 2


def test_page_has_plots_and_intervals() -> None:
    page = learning_curve_page([cell(200), cell(200, 1), cell(500)])
    assert "Content-Security-Policy" in page
    assert page.count("<svg") == 2
    assert "60.0 (58.0 to 62.0)" in page


def test_ratio_is_the_mean_of_the_cells() -> None:
    assert loss_ratio([cell(200, gain=0.5), cell(500, gain=0.2)]) == pytest.approx((2 + 1.25) / 2)


def test_plot_is_a_well_formed_file_of_its_own() -> None:
    root = ElementTree.fromstring(accuracy_svg([cell(200), cell(500)]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "background" in root.attrib["style"]


def test_cells_of_different_splits_are_rejected() -> None:
    with pytest.raises(GrocerError, match="different"):
        learning_curve_page([cell(200), {**cell(500), "splits": "b"}])


def test_run_continues_with_unfinished_cells(tmp_path: Path) -> None:
    config = recipe("tiny").with_settings(
        ["tiny.hidden=32", "tiny.steps=2", "train.max_steps=2", "lora.r=4"]
    )
    run(str(CATALOGUE), config, tmp_path, ["100"], 1, test=60)
    (first,) = (tmp_path / "cells.jsonl").read_text().splitlines()
    run(str(CATALOGUE), config, tmp_path, ["100", "120"], 1, test=60)
    again, second = (tmp_path / "cells.jsonl").read_text().splitlines()
    assert again == first
    finished = json.loads(second)
    assert (finished["training"], finished["validation"], finished["test"]) == (70, 50, 60)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".cell")]
    assert "<svg" in learning_curve_page(read_cells(tmp_path / "cells.jsonl"))
