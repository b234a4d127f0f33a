"""The split page shows every label and names those without test products."""

import re
from html import unescape

from grocer.artifacts.base import BySide
from grocer.config.stages import SplitConfig
from grocer.reports.split import FIRST_LABELS, split_page
from tests.fixtures.page_layout import SPLITS


def text(noun: str = "department", **changes: object) -> str:
    """The page's text without tags, with single spaces."""
    html = split_page(SPLITS.model_copy(update=changes), SplitConfig(), noun)
    words = re.sub(r"<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(words))


def test_labels_are_listed_with_their_sides_largest_first() -> None:
    page = text()
    rows = ["dairy eggs 79,000 9,990 9,997 10.1 %", "produce 990 10 3 0.3 %"]
    assert all(row in page for row in rows)
    assert page.index(rows[0]) < page.index(rows[1])


def test_sizes_have_plain_numbers_on_their_axis() -> None:
    small = (("train", 8), ("validation", 1), ("test", 1))
    large = (("train", 80), ("validation", 10), ("test", 10))
    page = text(departments={"small": small, "large": large})
    assert " 10 20 50 100 products in train" in page


def test_labels_without_test_products_are_named() -> None:
    page = text(without_test=("pets", "toys"))
    assert "No test product in pets, toys: " in page
    assert "No test product" not in text(without_test=())


def test_purchases_are_shares_of_all_and_may_be_zero() -> None:
    assert "10,000 test products, 13.4 % of all purchases" in text()
    none = BySide(train=0, validation=0, test=0)
    assert "10,000 test products, 0.0 % of all purchases" in text(purchases=none)


def test_largest_deviation_is_shown_with_its_sign() -> None:
    page = text()
    assert "dairy eggs, 10.1 % of 98,987 products in test" in page
    assert "(+1.0 standard deviations)" in page


def test_many_labels_are_collapsed_but_not_omitted() -> None:
    sides = BySide(train=8, validation=1, test=1)
    labels = {f"aisle {i}": sides for i in range(FIRST_LABELS + 3)}
    page = text("aisle", departments=labels)
    assert " 3 more " in page
    assert all(f" aisle {i} 8 1 1 " in page for i in range(FIRST_LABELS + 3))


def test_aisles_without_training_products_are_listed() -> None:
    page = text(aisles=14, aisles_without_training=("dairy: curd",), without_aisle=2)
    assert "Aisles without training products: 1" in page
    assert "cannot predict dairy: curd." in page
