"""Generate orders and order lines of Instacart's shape for a catalogue, at any scale, from a seed.

At scale 1 the counts are the published ones: 3,421,083 orders of 206,209 users, 32,434,489 prior
and 1,384,617 train lines. 2,078,068 of the lines belong to first orders, which have no days since
a prior order. As in the original, orders are sorted by user, order ids are shuffled, lines are
sorted by order and cart position, a few products are in most carts, and no cart has a product
twice.
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


def generate(catalogue: Path, out: Path, scale: float = 1.0, seed: int = 11) -> None:
    """Write the six CSV files to `out`, from products, aisles and departments in `catalogue`.

    A catalogue with fewer than Instacart's 49,688 products is extended with numbered copies.
    """
    random = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("aisles.csv", "departments.csv"):
        shutil.copyfile(catalogue / name, out / name)
    products = random.permutation(_write_products(catalogue / "products.csv", out / "products.csv"))
    users, train = round(USERS * scale), round(TRAIN_ORDERS * scale)
    later = round((PRIOR_ORDERS - USERS) * scale)
    # Each user has a first order, at least two more, and a last one that is train or test.
    prior = 1 + _parts(random, later, users, least=2)
    owner = np.repeat(np.arange(users), prior + 1)
    number = _positions(prior + 1)
    last = number == (prior + 1)[owner]
    is_train = np.isin(owner, random.permutation(users)[:train])
    lines = np.zeros(len(owner), dtype=np.int64)  # test orders have no lines
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
    """Return `count` integers of at least `least` with sum `total`, skewed like cart sizes."""
    weights = random.gamma(1.6, size=count)
    return least + random.multinomial(total - least * count, weights / weights.sum())


def _positions(sizes: Integers) -> Integers:
    """Return 1, 2, ... within each group of the given sizes."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) - np.repeat(starts, sizes) + 1


def _write_products(source: Path, target: Path) -> Integers:
    """Copy the products, extended to `PRODUCTS`, and return their ids."""
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
    table = {  # the query below uses these names
        "order_id": order,
        "user_id": owner + 1,
        "side": side,
        "order_number": number,
        "order_dow": random.integers(0, 7, size),
        "hour": np.clip(random.normal(13.5, 4.2, size), 0, 23).astype(np.int64),
        "days": days,
    }
    with duckdb.connect() as database:
        database.register("generated", _arrow(table))
        database.execute(
            "COPY (SELECT order_id, user_id, ['prior', 'train', 'test'][side + 1] AS eval_set, "
            "order_number, order_dow, lpad(hour::VARCHAR, 2, '0') AS order_hour_of_day, "
            "CASE WHEN NOT isnan(days) THEN days END AS days_since_prior_order FROM generated) "
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
    # Zipf-Mandelbrot, fitted so that the top 1,000 products are half of the purchases.
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
            database.register("generated", _arrow(table))
            database.execute(f"COPY generated TO '{part}' (FORMAT csv, HEADER false)")
            with part.open("rb") as chunk:
                shutil.copyfileobj(chunk, file)
        part.unlink()


def _distinct(
    random: np.random.Generator, owner: Integers, popularity: npt.NDArray[np.float64]
) -> Integers:
    """Return indices of products for lines of the orders `owner`, distinct within an order."""
    chosen = np.searchsorted(popularity, random.random(len(owner)))
    while True:
        key = owner * len(popularity) + chosen
        by_key = np.argsort(key, kind="stable")
        duplicates = by_key[1:][np.diff(key[by_key]) == 0]
        if not len(duplicates):
            return chosen
        chosen[duplicates] = random.integers(0, len(popularity), len(duplicates))


def _arrow(columns: dict[str, npt.NDArray[np.generic]]) -> object:
    import pyarrow as pa

    return pa.table(columns)
