"""Protects docs/configuration.md: it is what `RunConfig` says today, every setting and bound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from grocer.config import docs as reference
from grocer.config.recipes import RECIPES
from grocer.config.run import RunConfig

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def rows() -> dict[str, list[str]]:
    """The cells of each setting's row, by its key."""
    table = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in reference.page().splitlines()]
    return {
        cells[0].strip("`"): cells[1:] for cells in table if len(cells) == 4 and "`" in cells[0]
    }


def settings(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key that `--set` takes, found by walking the models themselves."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if path:
            yield f"{path}{name}"
        for kind in inner:
            yield from settings(kind, f"{path}{name}.")


def test_the_committed_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == reference.page(), "run `make docs` and commit docs/configuration.md"


def test_every_setting_has_its_row_and_no_row_lacks_a_setting() -> None:
    assert sorted(rows()) == sorted(settings(RunConfig))


@pytest.mark.parametrize(
    ("key", "values", "default"),
    [
        ("gate.min_accuracy", "number ≥ 0 and ≤ 1", "`0.85`"),
        ("split.test", "number > 0 and < 0.5", "`0.1`"),
        ("catalogue.levels", "`1`, `2`", "`1`"),
        ("lora.target_modules", "`all-linear`, or list of text", "`all-linear`"),
        ("data.columns", "the settings below, or `null`", "`null`"),
        (
            "cluster.model_cpu",
            r"text that matches `^([0-9]+(\.[0-9]+)?\|[0-9]+m)$`",
            "`4`; tiny: `2`",
        ),
    ],
)
def test_a_row_says_what_may_be_given(key: str, values: str, default: str) -> None:
    assert rows()[key][:2] == [values, default]


def test_every_difference_of_a_recipe_is_told() -> None:
    def flat(config: RunConfig) -> dict[str, Any]:
        tree = config.model_dump(mode="json")
        return {f"{s}.{k}": v for s, part in tree.items() if s != "recipe" for k, v in part.items()}

    plain, told = flat(RunConfig(recipe="none")), rows()
    for name, make in RECIPES.items():
        differs = {key for key, value in flat(make()).items() if value != plain[key]}
        assert {key for key, cells in told.items() if f"{name}: " in cells[1]} == differs
