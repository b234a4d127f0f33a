"""The catalogue as training uses it: one example for each normalised name, with one label.

A catalogue spells a product in several ways (`2% Low-Fat Milk`, `2 % Lowfat Milk®`). Products
whose names are equal after normalisation are *duplicates*: they become one example, so that no
name is repeated, within a side of the split or across sides. If duplicates have different labels
(a *conflict*), the label with the most purchases wins. Products without a label are
listed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd

from grocer.config.run import RunConfig
from grocer.errors import CatalogueError
from grocer.ingest.corrections import UNCORRECTED
from grocer.model.prompts.product_names import normalise


@dataclass(frozen=True)
class Catalogue:
    """Labelled examples, and the products without label.

    `examples` has a row for each normalised name, sorted by it: product_id and product_name (of
    the most purchased duplicate with that label), normalised_name, department (the label, even
    if that is the aisle) and purchases (sum over those duplicates). If the label has two levels
    there is a column aisle, empty if unknown. With a corrections table there is a column
    uncorrected: the label without corrections, empty if there was none. `unlabelled` has a row for
    each product without label: the same columns without department, aisle and uncorrected.
    """

    examples: pd.DataFrame
    unlabelled: pd.DataFrame
    labels: tuple[str, ...]
    duplicate_names: int
    """Normalised names of more than one labelled product."""
    label_conflicts: int
    """Normalised names whose products have more than one label."""


def read_catalogue(
    products: pd.DataFrame, config: RunConfig, prompt_name: Callable[[str], str] = str
) -> Catalogue:
    """Return the catalogue of products: product_id, product_name, department, aisle, purchases.

    `prompt_name` returns a name as the prompt shows it. Names that are equal there, for instance
    because they are truncated, are duplicates too.

    Raises:
        CatalogueError: the configuration needs aisles, or too few products or labels.
    """
    noun, unlabelled_names = config.catalogue.label, config.catalogue.unlabelled
    require_aisles(products, config)
    products = products.assign(
        normalised_name=[normalise(prompt_name(name)) for name in products["product_name"]],
        department=_labels(products[noun], unlabelled_names),
        aisle=_labels(products["aisle"], unlabelled_names),
    )
    known = products["department"] != ""
    examples, duplicates, conflicts = _deduplicate(products[known])
    if UNCORRECTED in products:
        examples[UNCORRECTED] = _uncorrected(products, examples, unlabelled_names)
        is_corrected = products["department"] != _labels(products[UNCORRECTED], unlabelled_names)
        products["aisle"] = products["aisle"].mask(is_corrected, "")  # of the wrong department
    if config.catalogue.levels == 2:
        examples["aisle"] = _aisles(products[known], examples)
    labels = tuple(sorted(examples["department"].unique()))
    minimum = config.validation.min_products
    if len(examples) < minimum:
        raise CatalogueError(
            f"the catalogue has {len(examples):,} distinct names with a label ({noun}), of "
            f"{len(products):,} products; at least {minimum:,} are needed "
            f"(validation.min_products): add products, or lower the limit"
        )
    if len(labels) < 2:
        raise CatalogueError(
            f"every labelled product has the same {noun}, {labels[0]!r}; at least 2 are needed: "
            f"add products of others, or check catalogue.unlabelled, which excludes labels"
        )
    columns = ["product_id", "product_name", "normalised_name", "purchases"]
    unlabelled = products.loc[~known, columns].sort_values("product_id", ignore_index=True)
    return Catalogue(examples, unlabelled, labels, duplicates, conflicts)


def require_aisles(products: pd.DataFrame, config: RunConfig) -> None:
    """Check that products have aisles if the configuration needs them.

    Raises:
        CatalogueError: names the setting that needs them.
    """
    is_label, levels = config.catalogue.label == "aisle", config.catalogue.levels
    if (is_label or levels == 2) and not products["aisle"].notna().any():
        setting, other = (
            ("label=aisle", "label=department") if is_label else ("levels=2", "levels=1")
        )
        raise CatalogueError(
            f"catalogue.{setting}, but no product has an aisle; add aisles to the source "
            f"(aisles.csv, or data.columns.aisle), or set catalogue.{other}"
        )


def _labels(column: pd.Series[str], unlabelled: Collection[str]) -> pd.Series[str]:
    """Return each product's label with single spaces; empty if it is null or `unlabelled`."""
    texts = column.astype(object)
    labels = texts.map(lambda label: " ".join(str(label).split()), na_action="ignore").fillna("")
    excluded = {normalise(name) for name in unlabelled}
    return labels.mask(labels.map(normalise).isin(excluded), "")


def _deduplicate(products: pd.DataFrame) -> tuple[pd.DataFrame, int, int]:
    """Return a row for each normalised name, and the numbers of duplicate names and conflicts.

    The label with most purchases wins; then that of most products; then the first by name.
    """
    chosen = _winners(products, ["normalised_name"], "department")
    order = ["normalised_name", "own_purchases", "product_id"]
    representatives = (
        products.rename(columns={"purchases": "own_purchases"})
        .merge(chosen, on=["normalised_name", "department"])
        .sort_values(order, ascending=[True, False, True])
        .drop_duplicates("normalised_name")
    )
    columns = ["product_id", "product_name", "normalised_name", "department", "purchases"]
    duplicates = int((products["normalised_name"].value_counts() > 1).sum())
    labels = products.groupby("normalised_name")["department"].nunique()
    conflicts = int((labels > 1).sum())
    return representatives[columns].reset_index(drop=True), duplicates, conflicts


def _uncorrected(
    products: pd.DataFrame, examples: pd.DataFrame, unlabelled: Collection[str]
) -> pd.Series[str]:
    """Return the label that each example would have without corrections; empty if none."""
    source = products.assign(department=_labels(products[UNCORRECTED], unlabelled))
    labels = _winners(source[source["department"] != ""], ["normalised_name"], "department")
    by_name = labels.set_index("normalised_name")["department"]
    return examples["normalised_name"].map(by_name).fillna("")


def _aisles(products: pd.DataFrame, examples: pd.DataFrame) -> pd.Series[str]:
    """Return the aisle of each example: that of most purchases among duplicates with its label."""
    key = ["normalised_name", "department"]
    aisles = _winners(products[products["aisle"] != ""], key, "aisle")
    return examples.merge(aisles[[*key, "aisle"]], how="left", on=key)["aisle"].fillna("")


def _winners(products: pd.DataFrame, key: list[str], label: str) -> pd.DataFrame:
    """Return the `label` with the most purchases for each `key`, and its number of `purchases`."""
    counts = products.groupby([*key, label], as_index=False).agg(
        purchases=("purchases", "sum"), products=("purchases", "size")
    )
    ascending = [*[True] * len(key), False, False, True]
    ranked = counts.sort_values([*key, "purchases", "products", label], ascending=ascending)
    return ranked.drop_duplicates(key)
