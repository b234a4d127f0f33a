"""Generate the sample catalogue: a fictional shop in the six files of Instacart's schema.

    python examples/make_catalogue.py [OUT]        (default: examples/catalogue)

Names come from the products in `vocabulary.toml`, orders from a simple model of shoppers. The
output is byte-identical on every machine: one seeded random generator, no iteration over sets, and
no logarithms or powers, whose last bit differs between C libraries.
"""

from __future__ import annotations

import csv
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from operator import methodcaller
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SEED = 20170501
USERS = 360
DUPLICATES = 40
CONFLICTS = 6
BRANDED = 0.42  # share of names with a brand, unless the department overrides it
STORE_BRANDED = 0.25  # share of brands that occur in all departments
LINE, CLAIM, SECOND_CLAIM, PACK = 0.16, 0.42, 0.2, 0.12  # shares of names with these parts
DAYS = [2, 4, 5, 6, 6, 6, 7, 9] + [4] * 7 + [2] * 15 + [11]  # weights of 0 to 30 between orders
REORDERED = 0.6  # probability that an order line repeats an earlier purchase of the user


class Product(NamedTuple):
    name: str
    aisle: str
    department: str


class Order(NamedTuple):
    user: int
    eval_set: str
    number: int
    day: int
    hour: int
    days_since_prior: str
    lines: list[tuple[int, int]]  # (product_id, reordered) in cart order; none in `test`


class Grammar:
    """Generates names: an expanded product with a brand, claims, a pack size, and misspellings."""

    def __init__(self, vocabulary: Mapping[str, Any], random: Random) -> None:
        self.departments: Mapping[str, Any] = vocabulary["departments"]
        self.words = {key: split(text) for key, text in vocabulary["words"].items()}
        self.random = random

    def expand(self, product: str) -> str:
        """Expand a product: first (a|b) and the optional [a|b], then <word> in the result."""
        pick = self.random.choice
        text = re.sub(r"\(([^)]*)\)", lambda found: pick(found[1].split("|")), product)
        text = re.sub(r"\[([^]]*)\]", lambda found: pick(["", pick(found[1].split("|"))]), text)
        return re.sub(r"<(\w+)>", lambda found: pick(self.words[found[1]]), text)

    def name(self, department: str, product: str) -> str:
        """Return a name of at most 10 words, which repeats none that `product` does not repeat."""
        while True:
            name = " ".join(self.compose(department, self.expand(product)).split())
            words = name.replace(",", "").split()
            repeated = {word for word in words if words.count(word) > 1}
            if len(words) <= 10 and all(product.split().count(word) > 1 for word in repeated):
                return restyle(name, self.random)

    def compose(self, department: str, product: str) -> str:
        """Add the optional parts: brand, line, claims before or after the product, pack size."""
        entry, chance = self.departments[department], self.random.random
        name = product.strip()
        if chance() < CLAIM:
            claim = self.random.choice(split(entry["claims"]))
            name = f"{name}, {claim}" if chance() < 0.12 else f"{claim} {name}"
        if chance() < SECOND_CLAIM:
            name = f"{self.random.choice(split(entry['claims']))} {name}"
        if chance() < LINE:
            name = f"{self.random.choice(self.words['line'])} {name}"
        if chance() < entry.get("branded", BRANDED):
            own = chance() >= STORE_BRANDED
            brands = split(entry["brands"]) if own else self.words["store"]
            # The first ones most often.
            brand = brands[int(len(brands) * chance() * chance())]
            name = f"{brand} {name}"
        if chance() < PACK:
            packs = split(entry["packs"]) if "packs" in entry else self.words["pack"]
            name += f"{self.random.choice([',', ''])} {self.random.choice(packs)}"
        return name

    def products(self, department: str) -> list[tuple[str, str]]:
        """Return the (aisle, product) pairs of a department."""
        aisles = self.departments[department]["aisles"]
        return [(aisle, product) for aisle, text in aisles.items() for product in split(text)]


def split(text: str) -> list[str]:
    """Return the comma-separated items of a text."""
    return [item for item in re.split(r",\s+", text.strip()) if item]


def restyle(name: str, random: Random) -> str:
    """Return a name with a typical irregularity of catalogues, or most often unchanged."""
    draw = random.random()
    if draw < 0.012:
        longest = max(name.split(), key=len)
        at = len(longest) // 2
        typo = longest[: at - 1] + longest[at] + longest[at - 1] + longest[at + 1 :]
        return name.replace(longest, typo)
    if draw < 0.016:
        return name.upper()
    if draw < 0.022:
        return name.lower()
    if draw < 0.05:
        return re.sub(r"(?<=[a-z]) (Free|Fat|Style)\b", r"-\1", name)
    return name.replace("&", "and") if draw < 0.09 else name


def normalised(name: str) -> str:
    return " ".join(name.casefold().split())


def make_products(grammar: Grammar, edge_cases: Mapping[str, list[str]]) -> list[Product]:
    """Return all products, shuffled; the position is the id."""
    random = grammar.random
    seen: dict[str, Product] = {}
    for department, entry in grammar.departments.items():
        for source, aisle, product in choose(grammar, department, entry["products"]):
            while normalised(name := grammar.name(source, product)) in seen:
                pass
            seen[normalised(name)] = Product(name, aisle, department)
    products = list(seen.values())
    products += duplicates(products, random) + conflicts(products, grammar)
    products += [
        Product(name, aisle, department)
        for aisle, names in edge_cases.items()
        for department, entry in grammar.departments.items()
        if aisle in entry["aisles"]
        for name in names
    ]
    random.shuffle(products)
    return products


def choose(grammar: Grammar, department: str, count: int) -> Iterator[tuple[str, str, str]]:
    """Yield (department of the vocabulary, aisle, product) for each product of a department.

    Each product of the vocabulary occurs once; those with alternatives repeat until there are
    `count`. Products of `missing` are drawn from all departments.
    """
    if department == "missing":
        everything = [
            (source, "missing", product)
            for source in grammar.departments
            for _, product in grammar.products(source)
        ]
        yield from grammar.random.sample(everything, count)
        return
    products = grammar.products(department)
    varied = [pair for pair in products if re.search(r"[<(\[]", pair[1])]
    if count > len(products):
        products += grammar.random.choices(varied, k=count - len(products))
    for aisle, product in products:
        yield department, aisle, product


def duplicates(products: list[Product], random: Random) -> list[Product]:
    """Return duplicates that differ from existing products only in case or spacing."""
    spaced = methodcaller("replace", " ", "  ", 1)
    changes = (str.upper, str.lower, str.capitalize, "{} ".format, " {}".format, spaced)
    chosen = random.sample(products, DUPLICATES)
    return [p._replace(name=changes[i % len(changes)](p.name)) for i, p in enumerate(chosen)]


def conflicts(products: list[Product], grammar: Grammar) -> list[Product]:
    """Return duplicates of existing names in another aisle and department."""
    elsewhere = {
        "bakery": ("cookies cakes", "snacks"),
        "international": ("condiments", "pantry"),
        "canned goods": ("prepared soups salads", "deli"),
    }
    chosen = [p for p in products if p.department in elsewhere]
    sampled = grammar.random.sample(chosen, CONFLICTS)
    return [Product(p.name, *elsewhere[p.department]) for p in sampled]


def popularity(products: list[Product], departments: Mapping[str, Any]) -> list[float]:
    """Return cumulative weights: departments by share, their products by Zipf's law."""
    shares = {name: entry["purchases"] for name, entry in departments.items()}
    rank, total = dict.fromkeys(shares, 0), dict.fromkeys(shares, 0.0)
    weights = []
    for product in products:
        rank[product.department] += 1
        weights.append(1 / (rank[product.department] + 4))
        total[product.department] += weights[-1]
    pairs = zip(products, weights, strict=True)
    return list(accumulate(w * shares[p.department] / total[p.department] for p, w in pairs))


def make_orders(weights: list[float], random: Random) -> Iterator[Order]:
    """Yield every user's orders: all `prior` except the last, which is `train` or `test`."""
    for user in range(1, USERS + 1):
        x = random.random()
        count = 4 + int(52 * x * x * x)
        bought: dict[int, None] = {}
        for number in range(1, count + 1):
            eval_set = "prior" if number < count else random.choices(["train", "test"], [64, 36])[0]
            lines = [] if eval_set == "test" else fill_cart(bought, weights, random)
            yield Order(
                user=user,
                eval_set=eval_set,
                number=number,
                day=random.choices(range(7), [6, 6, 5, 4, 4, 4, 5])[0],
                hour=random.choices(range(24), [1] * 7 + [3] + [8] * 11 + [4] * 3 + [2] * 2)[0],
                days_since_prior=f"{random.choices(range(31), DAYS)[0]}.0" if number > 1 else "",
                lines=lines,
            )


def fill_cart(
    bought: dict[int, None], weights: list[float], random: Random
) -> list[tuple[int, int]]:
    """Return a cart of about nine distinct products, and add them to `bought`."""
    size = 1 + int(32 * random.random() * random.random())
    past, ids = list(bought), range(1, len(weights) + 1)
    cart: dict[int, int] = {}
    while len(cart) < size:
        if past and random.random() < REORDERED:
            product = random.choice(past)
        else:
            product = random.choices(ids, cum_weights=weights)[0]
        cart[product] = int(product in bought)
    bought.update(dict.fromkeys(cart))
    return list(cart.items())


def write_csv(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def write_dimensions(out: Path, products: list[Product], departments: Mapping[str, Any]) -> None:
    aisles = [aisle for entry in departments.values() for aisle in entry["aisles"]]
    aisle_id = {aisle: number for number, aisle in enumerate(sorted(aisles), start=1)}
    write_csv(out / "aisles.csv", "aisle_id,aisle", ((n, a) for a, n in aisle_id.items()))
    ids = [(entry["id"], name) for name, entry in departments.items()]
    write_csv(out / "departments.csv", "department_id,department", ids)
    rows = [
        (number, p.name, aisle_id[p.aisle], departments[p.department]["id"])
        for number, p in enumerate(products, start=1)
    ]
    write_csv(out / "products.csv", "product_id,product_name,aisle_id,department_id", rows)


def write_orders(out: Path, orders: list[Order], random: Random) -> None:
    """Write orders and order lines with shuffled ids, which reveal neither user nor time."""
    ids = random.sample(range(1, len(orders) + 1), len(orders))
    write_csv(
        out / "orders.csv",
        "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order",
        (
            (i, o.user, o.eval_set, o.number, o.day, f"{o.hour:02}", o.days_since_prior)
            for i, o in zip(ids, orders, strict=True)
        ),
    )
    by_id = sorted(zip(ids, orders, strict=True), key=lambda pair: pair[0])
    for eval_set in ("prior", "train"):
        rows = (
            (order_id, product, position, reordered)
            for order_id, order in by_id
            if order.eval_set == eval_set
            for position, (product, reordered) in enumerate(order.lines, start=1)
        )
        header = "order_id,product_id,add_to_cart_order,reordered"
        write_csv(out / f"order_products__{eval_set}.csv", header, rows)


def main(out: Path) -> None:
    vocabulary = tomllib.loads((HERE / "vocabulary.toml").read_text(encoding="utf-8"))
    random = Random(SEED)
    products = make_products(Grammar(vocabulary, random), vocabulary["edge_cases"])
    departments = vocabulary["departments"]
    orders = list(make_orders(popularity(products, departments), random))
    out.mkdir(parents=True, exist_ok=True)
    write_dimensions(out, products, departments)
    write_orders(out, orders, random)
    lines = sum(len(order.lines) for order in orders)
    print(f"{out}: {len(products)} products, {len(orders)} orders, {lines} order lines")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "catalogue")
