"""Tests that the sample catalogue is reproducible and resembles Instacart's data."""

import csv
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from grocer.artifacts.counts import Counts
from grocer.config.recipes import recipe
from grocer.dataset.run import run as build_dataset
from grocer.ingest.run import run as ingest
from grocer.model.prompts.product_names import normalise
from grocer.validation.run import run as validate

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOGUE = EXAMPLES / "catalogue"
HEADERS = {
    "aisles": "aisle_id,aisle",
    "departments": "department_id,department",
    "products": "product_id,product_name,aisle_id,department_id",
    "orders": "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,"
    "days_since_prior_order",
    "order_products__prior": "order_id,product_id,add_to_cart_order,reordered",
    "order_products__train": "order_id,product_id,add_to_cart_order,reordered",
}
DEPARTMENTS = """
frozen, other, bakery, produce, alcohol, international, beverages, pets, dry goods
pasta, bulk, personal care, meat seafood, pantry, breakfast, canned goods, dairy eggs,
household, babies, snacks, deli, missing
"""

Rows = list[dict[str, str]]


def read(table: str) -> Rows:
    with (CATALOGUE / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tables() -> dict[str, Rows]:
    return {table: read(table) for table in HEADERS}


@pytest.fixture(scope="module")
def lines(tables: dict[str, Rows]) -> Rows:
    return tables["order_products__prior"] + tables["order_products__train"]


@pytest.fixture(scope="module")
def names(tables: dict[str, Rows]) -> list[str]:
    return [row["product_name"] for row in tables["products"]]


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_script_reproduces_the_committed_files(tmp_path: Path, hash_seed: str) -> None:
    subprocess.run(
        [sys.executable, EXAMPLES / "make_catalogue.py", tmp_path / "out"],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written == {path.name: path.read_bytes() for path in CATALOGUE.iterdir()}


@pytest.mark.parametrize("table", HEADERS)
def test_files_have_the_schema_and_unix_line_endings(table: str) -> None:
    content = (CATALOGUE / f"{table}.csv").read_bytes()
    assert content.decode().split("\n")[0] == HEADERS[table]
    assert b"\r" not in content
    assert content.endswith(b"\n")
    assert all(None not in row and None not in row.values() for row in read(table))


def test_size_is_limited(tables: dict[str, Rows], lines: Rows) -> None:
    assert 3500 <= len(tables["products"]) <= 4500
    assert len(tables["aisles"]) == 134
    assert 30_000 <= len(lines) <= 60_000
    assert sum(path.stat().st_size for path in CATALOGUE.iterdir()) < 2_000_000


def test_names_have_a_long_tail_of_words(names: list[str]) -> None:
    words = Counter(word for name in names for word in set(normalise(name).split()))
    assert len(words) > 2500
    assert sum(count == 1 for count in words.values()) / len(words) > 0.4
    assert 4.0 < sum(len(name.split()) for name in names) / len(names) < 5.0


def test_catalogue_passes_validation_and_has_two_levels_of_labels(tmp_path: Path) -> None:
    settings = ["data.memory_limit_mb=200", "catalogue.levels=2"]
    config = recipe("tiny").with_settings(settings)
    for name in ("tables", "report", "splits"):
        (tmp_path / name).mkdir()
    ingest(str(CATALOGUE), config.data, tmp_path / "tables")
    counts = Counts.read(tmp_path / "tables")
    assert validate(counts, config, tmp_path / "report").success
    splits = build_dataset(counts, config, tmp_path / "splits")
    assert splits.products.test >= config.gate.min_test_products
    assert len(splits.departments) == 20
    assert not splits.without_test


def test_departments_match_instacart_and_have_enough_products(tables: dict[str, Rows]) -> None:
    of_id = {row["department_id"]: row["department"] for row in tables["departments"]}
    names = " ".join(DEPARTMENTS.split()).split(", ")
    assert of_id == {str(i): name for i, name in enumerate(names, start=1)}
    products: dict[str, int] = defaultdict(int)
    for row in tables["products"]:
        products[of_id[row["department_id"]]] += 1
    assert products.pop("bulk") >= 25
    assert min(products[name] for name in names if name != "bulk") >= 40
    assert 0.02 < products["missing"] / len(tables["products"]) < 0.03


def test_each_aisle_belongs_to_one_department(tables: dict[str, Rows]) -> None:
    departments = defaultdict(set)
    for row in tables["products"]:
        departments[row["aisle_id"]].add(row["department_id"])
    assert set(departments) == {row["aisle_id"] for row in tables["aisles"]}
    assert all(len(found) == 1 for found in departments.values())


def test_orders_are_in_the_file_of_their_set(tables: dict[str, Rows], lines: Rows) -> None:
    assert len({(line["order_id"], line["product_id"]) for line in lines}) == len(lines)
    for eval_set in ("prior", "train"):
        of_set = {o["order_id"] for o in tables["orders"] if o["eval_set"] == eval_set}
        assert {line["order_id"] for line in tables[f"order_products__{eval_set}"]} == of_set


def test_days_since_prior_order_is_missing_only_for_first_orders(tables: dict[str, Rows]) -> None:
    for order in tables["orders"]:
        first = order["order_number"] == "1"
        assert (order["days_since_prior_order"] == "") == first
        assert first or 0.0 <= float(order["days_since_prior_order"]) <= 30.0
        assert not first or order["eval_set"] == "prior"


def test_share_of_lines_with_a_null_matches_instacart(tables: dict[str, Rows], lines: Rows) -> None:
    first = {order["order_id"] for order in tables["orders"] if order["order_number"] == "1"}
    assert 0.05 < sum(line["order_id"] in first for line in lines) / len(lines) < 0.08


def test_produce_has_few_products_but_many_purchases(tables: dict[str, Rows], lines: Rows) -> None:
    produce = {row["product_id"] for row in tables["products"] if row["department_id"] == "4"}
    assert len(produce) / len(tables["products"]) < 0.06
    assert sum(line["product_id"] in produce for line in lines) / len(lines) > 0.25


def test_reordered_marks_repeated_purchases(tables: dict[str, Rows], lines: Rows) -> None:
    carts = defaultdict(list)
    for line in lines:
        carts[line["order_id"]].append(line)
    bought: dict[str, set[str]] = defaultdict(set)
    for order in tables["orders"]:
        cart = carts[order["order_id"]]
        before = bought[order["user_id"]]
        assert [int(line["add_to_cart_order"]) for line in cart] == list(range(1, len(cart) + 1))
        assert all(line["reordered"] == str(int(line["product_id"] in before)) for line in cart)
        before.update(line["product_id"] for line in cart)


@pytest.mark.parametrize(
    ("text", "at_least"),
    [
        ('\\"', 10),
        (",", 100),
        ("é", 2),
        ("ñ", 2),
        ("ü", 1),
        ("\N{NO-BREAK SPACE}", 2),
        ("\N{REPLACEMENT CHARACTER}", 2),
        ("\N{CYRILLIC CAPITAL LETTER ES}", 1),
        ("&#39", 1),
        ("&amp ", 1),
        ("  ", 5),
    ],
)
def test_names_contain_edge_cases(names: list[str], text: str, at_least: int) -> None:
    assert sum(text in name for name in names) >= at_least


def test_some_names_are_digits_or_have_surrounding_spaces(names: list[str]) -> None:
    assert sum(name.isdigit() for name in names) == 3
    assert sum(name != name.strip() for name in names) >= 5


def test_backslash_before_a_quote_is_part_of_the_name() -> None:
    text = (CATALOGUE / "products.csv").read_text(encoding="utf-8")
    assert '"9\\"" Glass Pie Dish"' in text
    assert '"""Everyday"" Rolled Oats"' in text


def test_some_names_are_duplicates_and_some_have_two_departments(tables: dict[str, Rows]) -> None:
    spellings, departments = defaultdict(set), defaultdict(set)
    for row in tables["products"]:
        normalised = " ".join(row["product_name"].casefold().split())
        spellings[normalised].add(row["product_name"])
        departments[normalised].add(row["department_id"])
    assert 35 <= sum(len(found) > 1 for found in spellings.values()) <= 45
    assert 4 <= sum(len(found) > 1 for found in departments.values()) <= 10
