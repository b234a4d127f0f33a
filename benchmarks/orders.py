"""Makes orders and order lines in Instacart's shape for a catalogue, at any scale, from a seed.

At scale 1 the counts are the published ones: 3,421,083 orders of 206,209 users, 32,434,489 prior
and 1,384,617 train lines, of which 2,078,068 are of first orders, which have no days since a
prior one. Like the original: orders sorted by user, order ids shuffled, lines sorted by order
and cart position, a few products in most carts, no product twice in a cart.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

USERS = 206_209
PRIOR_ORDERS, TRAIN_ORDERS = 3_214_874, 131_209
FIRST_LINES, PRIOR_LINES, TRAIN_LINES = 2_078_068, 32_434_489, 1_384_617
PRODUCTS = 49_688
CHUNK = 2_000_000

Integers = npt.NDArray[np.int64]


def make(catalogue: Path, out: Path, scale: float = 1.0, seed: int = 11) -> None:
    """Write the six CSVs to the directory `out`; `catalogue` holds products, aisles, departments.

    A catalogue of fewer than Instacart's 49,688 products is filled up with numbered copies.
    """
    random = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("aisles.csv", "departments.csv"):
        shutil.copyfile(catalogue / name, out / name)
    products = random.permutation(_write_products(catalogue / "products.csv", out / "products.csv"))
    users, train = round(USERS * scale), round(TRAIN_ORDERS * scale)
    later = round((PRIOR_ORDERS - USERS) * scale)
    # A user's orders: the first, at least two more, and one last that is train or test.
    prior = 1 + _parts(random, later, users, least=2)
    owner = np.repeat(np.arange(users), prior + 1)
    number = _positions(prior + 1)
    last = number == (prior + 1)[owner]
    is_train = np.isin(owner, random.permutation(users)[:train])
    lines = np.zeros(len(owner), dtype=np.int64)  # a test order has none
    for chosen, total in (
        (number == 1, FIRST_LINES),
        ((number > 1) & ~last, PRIOR_LINES - FIRST_LINES),
        (last & is_train, TRAIN_LINES),
    ):
        count = np.count_nonzero(chosen)
        lines[chosen] = _parts(random, round(total * scale), count, least=1)
    order = random.permutation(len(owner)) + 1
    _write_orders(random, out, order, owner, number, np.where(last, np.where(is_train, 1, 2), 0))
    for name, chosen in (("prior", ~last), ("train", last & is_train)):
        _write_lines(random, out, name, order[chosen], lines[chosen], products)


def _parts(random: np.random.Generator, total: int, count: int, least: int) -> Integers:
    """`count` integers, skewed as cart sizes are, each `least` or more, that add up to `total`."""
    weights = random.gamma(1.6, size=count)
    return least + random.multinomial(total - least * count, weights / weights.sum())


def _positions(sizes: Integers) -> Integers:
    """1, 2, ... within each group of the given sizes."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) - np.repeat(starts, sizes) + 1


def _write_products(source: Path, target: Path) -> Integers:
    """Copy the products, filled up; returns their ids."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    first = len(rows)
    top = max(int(row[0]) for row in rows)
    for extra in range(first, PRODUCTS):
        _, name, *rest = rows[extra % first]
        rows.append([str(top + extra - first + 1), f"{name} No. {extra // first + 1}", *rest])
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return np.array([int(row[0]) for row in rows])


def _write_orders(
    random: np.random.Generator,
    out: Path,
    order: Integers,
    owner: Integers,
    number: Integers,
    side: Integers,
) -> None:
    size = len(order)
    days = random.integers(0, 31, size).astype(np.float64)
    days[number == 1] = np.nan
    table = {  # read by name in the query below
        "order_id": order,
        "user_id": owner + 1,
        "side": side,
        "order_number": number,
        "order_dow": random.integers(0, 7, size),
        "hour": np.clip(random.normal(13.5, 4.2, size), 0, 23).astype(np.int64),
        "days": days,
    }
    with duckdb.connect() as database:
        database.register("made", _arrow(table))
        database.execute(
            "COPY (SELECT order_id, user_id, ['prior', 'train', 'test'][side + 1] AS eval_set, "
            "order_number, order_dow, lpad(hour::VARCHAR, 2, '0') AS order_hour_of_day, "
            "CASE WHEN NOT isnan(days) THEN days END AS days_since_prior_order FROM made) "
            f"TO '{out / 'orders.csv'}' (FORMAT csv, HEADER)"
        )


def _write_lines(
    random: np.random.Generator,
    out: Path,
    name: str,
    order: Integers,
    lines: Integers,
    products: Integers,
) -> None:
    """Write one file of order lines, chunk by chunk."""
    by_id = np.argsort(order)
    order, lines = order[by_id], lines[by_id]
    # Zipf-Mandelbrot with Instacart's head: its top 1,000 products make half of the purchases.
    popularity = np.cumsum(1 / (np.arange(len(products)) + 60.0) ** 1.05)
    popularity /= popularity[-1]
    ends = np.cumsum(lines)
    cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1] + CHUNK, CHUNK)) + 1
    with duckdb.connect() as database, (out / f"order_products__{name}.csv").open("wb") as file:
        file.write(b"order_id,product_id,add_to_cart_order,reordered\n")
        part = out / f".{name}.csv"
        for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
            sizes = lines[start:stop]
            owner = np.repeat(order[start:stop], sizes)
            chosen = products[_distinct(random, owner, popularity)]
            reordered = (random.random(len(owner)) < 0.59).astype(np.int8)
            table = {"o": owner, "p": chosen, "a": _positions(sizes), "r": reordered}
            database.register("made", _arrow(table))
            database.execute(f"COPY made TO '{part}' (FORMAT csv, HEADER false)")
            with part.open("rb") as made:
                shutil.copyfileobj(made, file)
        part.unlink()


def _distinct(
    random: np.random.Generator, owner: Integers, popularity: npt.NDArray[np.float64]
) -> Integers:
    """Indices of products for lines of orders `owner`, none twice in an order."""
    chosen = np.searchsorted(popularity, random.random(len(owner)))
    while True:
        key = owner * len(popularity) + chosen
        by_key = np.argsort(key, kind="stable")
        twice = by_key[1:][np.diff(key[by_key]) == 0]
        if not len(twice):
            return chosen
        chosen[twice] = random.integers(0, len(popularity), len(twice))


def _arrow(columns: dict[str, npt.NDArray[np.generic]]) -> object:
    import pyarrow as pa

    return pa.table(columns)
