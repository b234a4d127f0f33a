"""The page of the split says for whom nothing can be measured, and shows every label."""

from __future__ import annotations

import re
from html import unescape

import pytest

from grocer.artifacts.base import BySide
from grocer.config.stages import SplitConfig
from grocer.reports.split import FIRST_LABELS, split_page
from tests.fixtures.page_layout import SPLITS


def text(noun: str = "department", **changes: object) -> str:
    """What the page says, without its tags and with single spaces."""
    made = split_page(SPLITS.model_copy(update=changes), SplitConfig(), noun)
    words = re.sub(r"<style.*?</style>|<[^>]+>", " ", made, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(words))


def test_each_label_stands_with_its_sides_the_largest_first() -> None:
    said = text()
    rows = ["dairy eggs 79,000 9,990 9,997 10.1 %", "produce 990 10 3 0.3 %"]
    assert all(row in said for row in rows)
    assert said.index(rows[0]) < said.index(rows[1])


@pytest.mark.parametrize(("without", "pronoun"), [(["pets"], "it"), (["pets", "toys"], "them")])
def test_what_cannot_be_measured_is_named(without: list[str], pronoun: str) -> None:
    said = text(without_test=without)
    assert f"No test product in {', '.join(without)}: nothing will be known of {pronoun}," in said


def test_a_whole_split_names_none() -> None:
    assert "the gate will say no" not in text(without_test=[])


def test_purchases_are_shares_of_all_and_none_at_all_is_no_fault() -> None:
    assert "10,000 test products, 13.4 % of all purchases" in text()
    none = BySide(train=0, validation=0, test=0)
    assert "10,000 test products, 0.0 % of all purchases" in text(purchases=none)


def test_the_furthest_is_named_with_its_sign() -> None:
    assert "Furthest from its share is dairy eggs: 10.1 % of 98,987" in text()
    assert "(+1.0 standard deviations)" in text()


def test_more_labels_than_a_page_bears_are_folded_and_not_left_out() -> None:
    sides = BySide(train=8, validation=1, test=1)
    labels = {f"aisle {i}": sides for i in range(FIRST_LABELS + 3)}
    said = text("aisle", departments=labels)
    assert " 3 more " in said
    assert all(f" aisle {i} 8 1 1 " in said for i in range(FIRST_LABELS + 3))


def test_aisles_without_training_products_are_listed() -> None:
    levels = {"aisles": 14, "aisles_without_training": ["dairy: curd"], "without_aisle": 2}
    said = text(**levels)
    assert "Aisles that training has no product of: 1" in said
    assert "The model can't answer dairy: curd." in said
