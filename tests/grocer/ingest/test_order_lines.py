"""Protects the join: what goes in comes out once, and all that does not fit is counted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grocer.config.stages import DataConfig
from grocer.io.atomic import tree_digests
from tests.fixtures.ingest import read, run
from tests.fixtures.tables import LINES_HEADER, tables, write_csvs


def test_keys_beyond_the_lines_own_join_nothing(tmp_path: Path) -> None:
    content = tables()
    content["orders"].append([2**40 + 11, 1, "test", 4, 1, "09", "3.0"])
    content["products"].append([2**33 + 1, "Far Pear", 1, 4])
    counts = run(write_csvs(tmp_path / "in", content), tmp_path / "out")

    assert counts["order_lines"]["joined"] == counts["order_lines"]["read"] == 7
    assert read(tmp_path / "out", "order_lines")["order_id"].dtype == "int8"
    products = read(tmp_path / "out", "products").set_index("product_name")["purchases"]
    assert products["Far Pear"] == 0


def test_numbers_take_the_narrowest_type_that_holds_them(tmp_path: Path) -> None:
    content = tables()
    content["orders"][2][6] = "7.5"
    content["orders"][3][3] = 300
    content["order_products__prior"] += [[11, 2**40, 4, 1]]
    content["products"] += [[2**40, "By its GTIN", 1, 4]]
    run(write_csvs(tmp_path / "in", content), tmp_path / "out")
    lines = read(tmp_path / "out", "order_lines")
    found = {name: str(kind) for name, kind in lines.dtypes.items() if kind != "object"}
    assert found == {
        "order_id": "int8",
        "product_id": "int64",
        "add_to_cart_order": "int8",
        "reordered": "int8",
        "user_id": "int8",
        "order_number": "int16",
        "order_dow": "int8",
        "order_hour_of_day": "int8",
        "days_since_prior_order": "float32",
    }
    assert lines["days_since_prior_order"].tolist() == [7.5, 7.5, 7.5, 7.5, 30, 30]
    assert lines["product_id"].max() == 2**40


def test_what_does_not_fit_is_counted_once_and_shown(tmp_path: Path) -> None:
    content = tables()
    content["order_products__prior"] += [
        [10, 999, 4, 0],  # no such product
        [888, 1, 1, 0],  # no such order
        [888, 999, 2, 0],  # neither
        [11, 1, 9, 0],  # stands twice
    ]
    content["products"] += [[5, "Lost", 77, 99], [1, "Bananas again", 1, 4]]
    content["orders"].append(content["orders"][2])
    counts = run(write_csvs(tmp_path / "in", content), tmp_path / "out")
    expected = {"read": 11, "orphans": 3, "joined": 8, "with_nulls": 2, "kept": 6}
    assert counts["order_lines"] == expected
    assert counts["orphans"] == {
        "products_without_department": 1,
        "products_without_aisle": 1,
        "order_lines_without_product": 2,
        "order_lines_without_order": 2,
    }
    assert counts["duplicates"] == {
        "products": 1,
        "departments": 0,
        "aisles": 0,
        "orders": 1,
        "order_lines": 1,
    }
    rejected = read(tmp_path / "out", "rejected")["reason"].value_counts().to_dict()
    assert rejected == {
        "no such product": 2,
        "no such order": 1,
        "a null": 2,
        "twice in its order": 2,
        "order twice in orders": 2,
    }
    names = read(tmp_path / "out", "products")["product_name"]
    assert "Lost" in names.tolist()  # validation says so; it does not vanish in the join


def test_the_same_source_gives_the_same_rows_and_counts(tmp_path: Path) -> None:
    content = tables()
    more = range(1_000, 60_000)
    content["orders"] += [[n, n, "prior", 2, 0, 0, n % 30 or ""] for n in more]
    content["order_products__prior"] += [[n, p, p, 0] for n in more for p in (1, 2, 3, 9)]
    folder = write_csvs(tmp_path / "in", content)
    digests, lines = [], []
    for name in ("one", "two"):
        run(folder, tmp_path / name, DataConfig(memory_limit_mb=400))
        digests.append(tree_digests(tmp_path / name))
        del digests[-1]["order_lines.parquet"]  # several threads write: another order of rows
        key = ["order_id", "product_id"]
        lines.append(read(tmp_path / name, "order_lines").sort_values(key, ignore_index=True))
    assert digests[0] == digests[1]
    pd.testing.assert_frame_equal(*lines)


NAME = st.text(
    st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=12
)


SMALL = st.integers(1, 6)


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(NAME, min_size=1, max_size=6),
    orders=st.dictionaries(SMALL, st.none() | st.integers(0, 30), min_size=1, max_size=6),
    lines=st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=20),
)
def test_what_goes_in_comes_out_and_counts_add_up(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    orders: dict[int, int | None],
    lines: list[tuple[int, int]],
) -> None:
    content = tables()
    header = content["products"][0]
    content["products"] = [header, *([n, name, 1, 4] for n, name in enumerate(names, 1))]
    content["orders"] = [
        content["orders"][0],
        *([n, 1, "prior", 1, 0, 0, "" if days is None else days] for n, days in orders.items()),
    ]
    content["order_products__prior"] = [LINES_HEADER, *([o, p, 1, 0] for o, p in lines)]
    content["order_products__train"] = [LINES_HEADER, [1, 1, 1, 0]]
    folder = tmp_path_factory.mktemp("property")
    counts = run(write_csvs(folder / "in", content), folder / "out")

    every = [*lines, (1, 1)]
    fits = [(o, p) for o, p in every if o in orders and p <= len(names)]
    whole = [(o, p) for o, p in fits if orders[o] is not None]
    found = counts["order_lines"]
    assert found["read"] == found["joined"] + found["orphans"] == len(every)
    assert (found["joined"], found["kept"]) == (len(fits), len(whole))
    assert found["with_nulls"] == len(fits) - len(whole)
    assert counts["duplicates"]["order_lines"] == len(every) - len(set(every))
    products = read(folder / "out", "products")
    assert products["product_name"].tolist() == names
    assert products["purchases"].sum() == len(whole)
    joined = read(folder / "out", "order_lines")
    assert sorted(zip(joined["order_id"], joined["product_id"], strict=True)) == sorted(whole)
