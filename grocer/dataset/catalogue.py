"""The catalogue as it is learnt from: one product a name, one label a product.

Shops spell a product in many ways (`2% Low-Fat Milk`, `2 % Lowfat Milk®`). Products whose names
normalise alike are *twins*: they become one example, so that no name is learnt twice and none
stands on two sides of a split. Twins with different labels are a *conflict*; purchases decide.
Products without a label are no example, but a list to recover.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd

from grocer.config.run import RunConfig
from grocer.errors import CatalogueError

# What vanishes inside a word, as its neighbours belong together: apostrophes and trade marks.
_SILENT = str.maketrans("", "", "'’‘‛ʼʻ`´′®™©℠")
# Latin, Greek and Cyrillic accents only: in other scripts a combining mark makes another word.
_ACCENTS = dict.fromkeys(range(0x0300, 0x0370))


def normalise(name: str) -> str:
    """The spelling that twins share: NFKC, casefolded, single spaces, nothing but words.

    HTML entities are read, `&` becomes `and`; apostrophes, trade marks, accents and format
    characters vanish; control characters, other punctuation and symbols part words. A name of
    nothing but punctuation keeps it. Idempotent, and independent of the locale.
    """
    text = html.unescape(name).translate(_SILENT)
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    text = text.translate(_ACCENTS).replace("&", " and ")
    line = "".join(_on_one_line(character) for character in text)
    words = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in line)
    return unicodedata.normalize("NFKC", " ".join(words.split() or line.split()))


def _on_one_line(character: str) -> str:
    """A space for a control character, nothing for format characters and the like."""
    category = unicodedata.category(character)
    if category == "Cc":
        return " "
    return "" if category[0] == "C" else character


@dataclass(frozen=True)
class Catalogue:
    """What there is to learn from, and what there is to recover.

    `examples` has a row for each normalised name, sorted by it: product_id (the most purchased
    of its twins with that label), product_name, normalised_name, department (the label, also
    where that is the aisle) and purchases (of those twins together). Where the label has two
    levels there is aisle too, empty where none is known. `unlabelled` has a row for each product
    without a label: the same columns without the department.
    """

    examples: pd.DataFrame
    unlabelled: pd.DataFrame
    labels: tuple[str, ...]
    twins: int
    """Normalised names that more than one labelled product has."""
    conflicts: int
    """Normalised names whose products have more than one label."""


def read_catalogue(
    products: pd.DataFrame, config: RunConfig, spell: Callable[[str], str] = str
) -> Catalogue:
    """The catalogue of `products`: product_id, product_name, department, aisle, purchases.

    `spell` is what a name looks like in a prompt: products that a prompt can't tell apart, such
    as two whose names differ only past the cut, are twins too.

    Raises:
        CatalogueError: no aisles where they are wanted, or too few products or labels.
    """
    noun, absent = config.catalogue.label, config.catalogue.unlabelled
    require_aisles(products, config)
    products = products.assign(
        normalised_name=[normalise(spell(name)) for name in products["product_name"]],
        department=_labels(products[noun], absent),
        aisle=_labels(products["aisle"], absent),
    )
    known = products["department"] != ""
    examples, twins, conflicts = _one_a_name(products[known])
    if config.catalogue.levels == 2:
        examples["aisle"] = _aisles(products[known], examples)
    labels = tuple(sorted(examples["department"].unique()))
    fewest = config.validation.min_products
    if len(examples) < fewest:
        raise CatalogueError(
            f"the catalogue has {len(examples):,} distinct names with a label ({noun}), of "
            f"{len(products):,} products; at least {fewest:,} are needed "
            f"(validation.min_products): add products, or lower the limit"
        )
    if len(labels) < 2:
        raise CatalogueError(
            f"every labelled product has the same {noun}, {labels[0]!r}; at least 2 are needed: "
            f"add products of others, or see catalogue.unlabelled, which leaves labels out"
        )
    columns = ["product_id", "product_name", "normalised_name", "purchases"]
    unlabelled = products.loc[~known, columns].sort_values("product_id", ignore_index=True)
    return Catalogue(examples, unlabelled, labels, twins, conflicts)


def require_aisles(products: pd.DataFrame, config: RunConfig) -> None:
    """Do nothing where the configuration needs no aisles, or some product has one.

    Raises:
        CatalogueError: says which setting needs them.
    """
    own, levels = config.catalogue.label == "aisle", config.catalogue.levels
    if (own or levels == 2) and not products["aisle"].notna().any():
        wanted, instead = ("label=aisle", "label=department") if own else ("levels=2", "levels=1")
        raise CatalogueError(
            f"catalogue.{wanted}, but no product has an aisle: give the source aisles "
            f"(aisles.csv, or data.columns.aisle), or set catalogue.{instead}"
        )


def _labels(column: pd.Series[str], unlabelled: Collection[str]) -> pd.Series[str]:
    """Each product's label with single spaces; empty where it is null or means unlabelled."""
    given = column.astype(object)
    labels = given.map(lambda label: " ".join(str(label).split()), na_action="ignore").fillna("")
    absent = {normalise(name) for name in unlabelled}
    return labels.mask(labels.map(normalise).isin(absent), "")


def _one_a_name(products: pd.DataFrame) -> tuple[pd.DataFrame, int, int]:
    """One row a normalised name, and how many names had twins and how many a conflict.

    The label with the most purchases stands; then that of most products; then the first by name.
    """
    votes = _votes(products, ["normalised_name"], "department")
    chosen = votes.drop_duplicates("normalised_name")[
        ["normalised_name", "department", "purchases"]
    ]
    named = (
        products.drop(columns="purchases")
        .assign(own=products["purchases"])
        .merge(chosen, on=["normalised_name", "department"])
        .sort_values(["normalised_name", "own", "product_id"], ascending=[True, False, True])
        .drop_duplicates("normalised_name")
    )
    columns = ["product_id", "product_name", "normalised_name", "department", "purchases"]
    twins = int((products["normalised_name"].value_counts() > 1).sum())
    conflicts = int((votes["normalised_name"].value_counts() > 1).sum())
    return named[columns].reset_index(drop=True), twins, conflicts


def _aisles(products: pd.DataFrame, examples: pd.DataFrame) -> pd.Series[str]:
    """The aisle of each of `examples`, chosen as departments are among its twins that have one."""
    key = ["normalised_name", "department"]
    votes = _votes(products[products["aisle"] != ""], key, "aisle").drop_duplicates(key)
    return examples.merge(votes[[*key, "aisle"]], how="left", on=key)["aisle"].fillna("")


def _votes(products: pd.DataFrame, key: list[str], label: str) -> pd.DataFrame:
    """The values of `label` for each `key`, the one that stands first."""
    return (
        products.groupby([*key, label], as_index=False)
        .agg(purchases=("purchases", "sum"), products=("purchases", "size"))
        .sort_values(
            [*key, "purchases", "products", label],
            ascending=[*[True] * len(key), False, False, True],
        )
    )
