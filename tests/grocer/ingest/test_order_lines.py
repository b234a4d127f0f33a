"""Each order line is joined once, and lines that do not match are counted and listed."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grocer.artifacts.counts import OrderLineCounts
from grocer.config.stages import DataConfig
from grocer.ingest.schema import Rejection
from grocer.io.atomic import tree_digests
from tests.fixtures.ingest import ingest, read
from tests.fixtures.tables import LINES_HEADER, tables, write_csvs


def test_keys_too_large_for_the_narrow_type_match_no_line(tmp_path: Path) -> None:
    content = tables()
    content["orders"].append([2**40 + 11, 1, "test", 4, 1, "09", "3.0"])
    content["products"].append([2**33 + 1, "Far Pear", 1, 4])
    counts = ingest(write_csvs(tmp_path / "in", content), tmp_path / "out")

    assert counts.order_lines.joined == counts.order_lines.read == 7
    assert read(tmp_path / "out", "order_lines")["order_id"].dtype == "int8"
    products = read(tmp_path / "out", "products").set_index("product_name")["purchases"]
    assert products["Far Pear"] == 0


def test_numbers_have_the_narrowest_exact_type(tmp_path: Path) -> None:
    content = tables()
    content["orders"][2][6] = "7.5"
    content["orders"][3][3] = 300
    content["order_products__prior"] += [[11, 2**40, 4, 1]]
    content["products"] += [[2**40, "Product with GTIN as id", 1, 4]]
    ingest(write_csvs(tmp_path / "in", content), tmp_path / "out")
    lines = read(tmp_path / "out", "order_lines")
    types = {name: str(dtype) for name, dtype in lines.dtypes.items() if dtype != "object"}
    assert types == {
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


def test_orphans_nulls_and_duplicates_are_counted_once_and_rejected_rows_listed(
    tmp_path: Path,
) -> None:
    content = tables()
    content["order_products__prior"] += [
        [10, 999, 4, 0],  # unknown product
        [888, 1, 1, 0],  # unknown order
        [888, 999, 2, 0],  # both
        [11, 1, 9, 0],  # duplicate line
    ]
    content["products"] += [[5, "Orphan", 77, 99], [1, "Duplicate Bananas", 1, 4]]
    content["orders"].append(content["orders"][2])
    counts = ingest(write_csvs(tmp_path / "in", content), tmp_path / "out")
    expected = OrderLineCounts(read=11, orphans=3, joined=8, with_nulls=2, kept=6)
    assert counts.order_lines == expected
    assert counts.orphans.model_dump() == {
        "products_without_department": 1,
        "products_without_aisle": 1,
        "order_lines_without_product": 2,
        "order_lines_without_order": 2,
    }
    assert counts.duplicates == {
        "products": 1,
        "departments": 0,
        "aisles": 0,
        "orders": 1,
        "order_lines": 1,
    }
    assert read(tmp_path / "out", "rejected")["reason"].value_counts().to_dict() == {
        Rejection.UNKNOWN_PRODUCT: 2,
        Rejection.UNKNOWN_ORDER: 1,
        Rejection.NULL_VALUE: 2,
        Rejection.DUPLICATE_LINE: 2,
        Rejection.DUPLICATE_ORDER: 2,
    }
    # An orphan product stays in the table, so that validation can report it.
    assert "Orphan" in read(tmp_path / "out", "products")["product_name"].tolist()


def test_ingest_is_deterministic_but_for_the_order_of_lines(tmp_path: Path) -> None:
    content = tables()
    more = range(1_000, 60_000)
    content["orders"] += [[n, n, "prior", 2, 0, 0, n % 30 or ""] for n in more]
    content["order_products__prior"] += [[n, p, p, 0] for n in more for p in (1, 2, 3, 9)]
    folder = write_csvs(tmp_path / "in", content)
    digests, lines = [], []
    for name in ("one", "two"):
        ingest(folder, tmp_path / name, DataConfig(memory_limit_mb=400))
        digests.append(tree_digests(tmp_path / name))
        del digests[-1]["order_lines.parquet"]  # several threads write it
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
def test_all_matching_lines_are_written_and_counts_add_up(
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
    counts = ingest(write_csvs(folder / "in", content), folder / "out")

    all_lines = [*lines, (1, 1)]
    joined = [(o, p) for o, p in all_lines if o in orders and p <= len(names)]
    kept = [(o, p) for o, p in joined if orders[o] is not None]
    assert counts.order_lines == OrderLineCounts(
        read=len(all_lines),
        orphans=len(all_lines) - len(joined),
        joined=len(joined),
        with_nulls=len(joined) - len(kept),
        kept=len(kept),
    )
    assert counts.duplicates["order_lines"] == len(all_lines) - len(set(all_lines))
    products = read(folder / "out", "products")
    assert products["product_name"].tolist() == names
    assert products["purchases"].sum() == len(kept)
    written = read(folder / "out", "order_lines")
    assert sorted(zip(written["order_id"], written["product_id"], strict=True)) == sorted(kept)
