"""Split the labelled products and write them as prompts with completions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from grocer import progress
from grocer.artifacts.base import SIDES
from grocer.artifacts.counts import Counts
from grocer.artifacts.splits import Splits
from grocer.config.run import RunConfig
from grocer.dataset import split
from grocer.dataset.catalogue import read_catalogue
from grocer.errors import first_five
from grocer.ingest.corrections import UNCORRECTED
from grocer.io.atomic import write_json
from grocer.model.hierarchy import AISLES_FILE, ONE_LEVEL, Aisles, leaf_name, leaves
from grocer.model.prompts.product_names import normalise
from grocer.model.prompts.template import Template, template
from grocer.reports.split import split_page

_MANY_LABELS = 60
"""Above this, the list of labels takes more tokens of a pack than its products."""
_COLUMNS = ["product_id", "product_name", "aisle", "department", "purchases"]


def run(tables: Counts, config: RunConfig, out: Path) -> Splits:
    """Split the products of ingest's tables, and write the dataset to `out`.

    `train.parquet`, `validation.parquet` and `test.parquet` have a row for each normalised name
    (see `Catalogue.examples`) with its `prompt` and `completion`; `unlabelled.parquet` has the
    products without label; `labels.json` the sorted labels; `template.json` the prompt template;
    `aisles.json`, if the label has two levels, each label's aisles that have training products;
    `split.json` and `split.html` the report. The order of products does not matter.

    Raises:
        CatalogueError: too few products or labels, no aisles, or a label without training products.
    """
    two_levels = config.catalogue.levels == 2
    prompt = template(config.prompt, config.catalogue.label, aisles=two_levels)
    columns = _COLUMNS if tables.corrections is None else [*_COLUMNS, UNCORRECTED]
    products = pd.read_parquet(tables.directory / "products.parquet", columns=columns)
    catalogue = read_catalogue(products, config, prompt.slot)
    sides = split.divide(catalogue.examples, config.split)
    for side, examples in sides.items():
        _add_prompts(examples, prompt, catalogue.labels).to_parquet(
            out / f"{side}.parquet", index=False, compression="zstd"
        )
    catalogue.unlabelled.to_parquet(out / "unlabelled.parquet", index=False, compression="zstd")
    write_json(out / "labels.json", list(catalogue.labels))
    write_json(out / "template.json", prompt.model_dump(mode="json"))
    aisles = _training_aisles(sides["train"]) if two_levels else ONE_LEVEL
    if two_levels:
        write_json(out / AISLES_FILE, dict(aisles))

    # Later stages read the files, so overlap between sides is checked on the files.
    written = {side: pd.read_parquet(out / f"{side}.parquet") for side in SIDES}
    splits = Splits(
        **split.summary(written, config.split),
        duplicate_names=catalogue.duplicate_names,
        label_conflicts=catalogue.label_conflicts,
        unlabelled=len(catalogue.unlabelled),
        truncated_names=int(products["product_name"].map(prompt.is_truncated).sum()),
        **(_aisle_summary(catalogue.examples, aisles) if two_levels else {}),
    )
    splits.write(out)
    page = split_page(splits, config.split, config.catalogue.label)
    (out / "split.html").write_text(page, encoding="utf-8")
    _report(splits, catalogue.labels, config.catalogue.label)
    if prompt.form != "short" and len(catalogue.labels) > _MANY_LABELS:
        _say(
            f"the instruction lists all {len(catalogue.labels)} {config.catalogue.label}s; "
            "prompt.template=short omits it and saves training tokens"
        )
    return splits


def most_purchased(splits: Path, count: int = 3) -> list[str]:
    """Return the names of the most purchased test products, which training has not seen."""
    test = pd.read_parquet(splits / "test.parquet", columns=["product_name", "purchases"])
    return [str(name) for name in test.nlargest(count, "purchases")["product_name"]]


def _add_prompts(examples: pd.DataFrame, prompt: Template, labels: tuple[str, ...]) -> pd.DataFrame:
    """Return `examples` with the columns `prompt` and `completion`."""
    names = examples["department"].tolist()
    if "aisle" in examples:
        pairs = zip(names, examples["aisle"], strict=True)
        # Without a known aisle, the completion ends after the department.
        names = [leaf_name(department, aisle).rstrip() for department, aisle in pairs]
    return examples.assign(
        prompt=[prompt.render(name, labels) for name in examples["product_name"]],
        completion=[prompt.completion(name) for name in names],
    )


def _training_aisles(train: pd.DataFrame) -> Aisles:
    """Return the aisles of each department that have training products, sorted."""
    known = train[train["aisle"] != ""].groupby("department")["aisle"].unique()
    return {str(department): sorted(aisles) for department, aisles in known.items()}


def _aisle_summary(examples: pd.DataFrame, training: Aisles) -> dict[str, Any]:
    """Return the fields of `Splits` about the second label level.

    Raises:
        ConfigError: too many aisles for a label set.
    """
    pairs = set(zip(examples["department"], examples["aisle"], strict=True))
    known = {pair for pair in pairs if pair[1]}
    trained = leaves(training, training)
    return {
        "aisles": len(trained),
        "aisles_without_training": tuple(sorted(leaf_name(*pair) for pair in known - set(trained))),
        "without_aisle": int((examples["aisle"] == "").sum()),
    }


def _report(splits: Splits, labels: Sequence[str], noun: str) -> None:
    """Report the split, and labels that are probably the same, as progress messages."""
    sides = ", ".join(f"{side} {count:,}" for side, count in splits.products)
    _say(f"{sides} products, {len(labels)} {noun}s; no name is on two sides")
    forms = [normalise(label) for label in labels]
    if similar := [
        label for label, form in zip(labels, forms, strict=True) if forms.count(form) > 1
    ]:
        _say(
            f"some {noun}s differ only in case, accents or punctuation: "
            f"{first_five(similar, '; ')}; "
            "if they are the same, give them one spelling in the source"
        )
    _say(
        f"{splits.duplicate_names:,} duplicate names, {splits.label_conflicts:,} of them with "
        f"conflicting {noun}s; {splits.unlabelled:,} unlabelled products; "
        f"{splits.truncated_names:,} names truncated"
    )
    if splits.aisles is not None:
        _say(f"{splits.aisles:,} aisles; {splits.without_aisle:,} products have no known aisle")
    if missing := splits.aisles_without_training:
        _say(
            f"{len(missing)} aisles have no training product and can't be predicted: "
            f"{first_five(missing, '; ')}"
        )
    if splits.without_test:
        _say(
            f"{noun}s without a test product, whose accuracy is not measured: "
            f"{len(splits.without_test)} ({first_five(splits.without_test, '; ')}); add products, "
            "raise split.test, or list them in catalogue.unlabelled"
        )


def _say(text: str) -> None:
    progress.say("build_dataset", text)
