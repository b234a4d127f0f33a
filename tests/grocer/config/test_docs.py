"""docs/configuration.md matches `RunConfig`."""

import re
from pathlib import Path
from typing import Any

import pytest

from grocer.config import docs
from grocer.config.recipes import RECIPES
from grocer.config.removed import REMOVED
from grocer.config.run import RunConfig
from tests.fixtures.config_keys import settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def rows(columns: int) -> dict[str, list[str]]:
    """Return the cells of each table row by setting, from tables with that many columns."""
    table = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in docs.page().splitlines()]
    return {
        cells[0].strip("`"): cells[1:]
        for cells in table
        if len(cells) == columns and cells[0].startswith("`")
    }


def test_committed_page_is_up_to_date() -> None:
    assert PAGE.read_text() == docs.page(), "run `make docs` and commit docs/configuration.md"


def test_every_setting_has_one_row() -> None:
    assert sorted(rows(4)) == sorted(settings(RunConfig))
    assert rows(2).keys() == REMOVED.keys()


def test_number_of_settings_is_limited() -> None:
    assert len(list(settings(RunConfig))) <= 96


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
            r"text matching `^([0-9]+(\.[0-9]+)?\|[0-9]+m)$`",
            "`4`; smollm2: `2`; tiny: `2`",
        ),
    ],
)
def test_row_shows_valid_values_and_default(key: str, values: str, default: str) -> None:
    assert rows(4)[key][:2] == [values, default]


def test_rows_show_every_difference_of_a_recipe() -> None:
    def flat(config: RunConfig) -> dict[str, Any]:
        tree = config.model_dump(mode="json")
        return {f"{s}.{k}": v for s, part in tree.items() if s != "recipe" for k, v in part.items()}

    default, table = flat(RunConfig(recipe="none")), rows(4)
    for name, make in RECIPES.items():
        different = {key for key, value in flat(make()).items() if value != default[key]}
        assert {key for key, cells in table.items() if f"{name}: " in cells[1]} == different
