"""From the tables of ingest to prompts and their completions, on three sides of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from grocer import progress as console
from grocer.config.run import RunConfig
from grocer.dataset import split
from grocer.dataset.catalogue import read_catalogue
from grocer.io.atomic import write_json
from grocer.model.hierarchy import AISLES_FILE, ONE_LEVEL, Aisles, leaf_name, leaves
from grocer.model.prompt_template import Template, template
from grocer.reports.split import split_page

_LISTED = 5
# Labels whose list takes more of a pack than its products.
_MANY = 60


def build(tables: Path, config: RunConfig, out: Path) -> dict[str, Any]:
    """Write the split into `out` and return its report: `split.json`, and `split.html` for people.

    Reads `products.parquet` of ingest's artifact `tables`. `train.parquet`, `validation.parquet`
    and `test.parquet` have a row for each normalised name (see `Catalogue.examples`) with its
    `prompt` and `completion`; `unlabelled.parquet` has the products to recover; `labels.json`
    the sorted labels, `aisles.json` those aisles of each that training has products of, if the
    label has two levels, `template.json` the template. The same products give the same tables in
    whatever order they come.

    Raises:
        CatalogueError: too few products or labels, no aisles, or a label that can't be learnt.
    """
    two_levels = config.catalogue.levels == 2
    form = template(config.prompt, config.catalogue.label, aisles=two_levels)
    columns = ["product_id", "product_name", "aisle", "department", "purchases"]
    products = pd.read_parquet(tables / "products.parquet", columns=columns)
    catalogue = read_catalogue(products, config, form.slot)
    parts = split.divide(catalogue.examples, config.split)
    for side, part in parts.items():
        _prompted(part, form, catalogue.labels).to_parquet(
            out / f"{side}.parquet", index=False, compression="zstd"
        )
    catalogue.unlabelled.to_parquet(out / "unlabelled.parquet", index=False, compression="zstd")
    write_json(out / "labels.json", list(catalogue.labels))
    write_json(out / "template.json", form.model_dump(mode="json"))
    taught = _taught(parts["train"]) if two_levels else ONE_LEVEL
    if two_levels:
        write_json(out / AISLES_FILE, dict(taught))

    # The proof is about what later steps read, so it reads that, not what this step meant.
    written = {side: pd.read_parquet(out / f"{side}.parquet") for side in split.SIDES}
    report = split.report(written, config.split) | {
        "conflicts": catalogue.conflicts,
        "twins": catalogue.twins,
        "unlabelled": len(catalogue.unlabelled),
        "cut_names": int(products["product_name"].map(form.is_truncated).sum()),
    }
    if two_levels:
        report |= _aisles(catalogue.examples, taught)
    write_json(out / "split.json", report)
    page = split_page(report, config.split, config.catalogue.label)
    (out / "split.html").write_text(page, encoding="utf-8")
    _say(report, len(catalogue.labels), config.catalogue.label)
    if form.form != "short" and len(catalogue.labels) > _MANY:
        console.say(
            "build_dataset",
            f"the instruction lists all {len(catalogue.labels)} {config.catalogue.label}s: "
            "prompt.template=short leaves it out, and training needs fewer tokens",
        )
    return report


def most_purchased(splits: Path, count: int = 3) -> list[str]:
    """Names of the test products that were bought most: unseen by training, known to a shopper."""
    test = pd.read_parquet(splits / "test.parquet", columns=["product_name", "purchases"])
    return [str(name) for name in test.nlargest(count, "purchases")["product_name"]]


def _prompted(part: pd.DataFrame, form: Template, labels: tuple[str, ...]) -> pd.DataFrame:
    """The rows with what the model is asked and what it should answer."""
    answers = part["department"].tolist()
    if "aisle" in part:
        pairs = zip(answers, part["aisle"], strict=True)
        # Where no aisle is known, training ends with what tells the department.
        answers = [leaf_name(department, aisle).rstrip() for department, aisle in pairs]
    return part.assign(
        prompt=[form.render(name, labels) for name in part["product_name"]],
        completion=[form.completion(answer) for answer in answers],
    )


def _taught(train: pd.DataFrame) -> Aisles:
    """The aisles of each department that there is a training product of, sorted."""
    known = train[train["aisle"] != ""].groupby("department")["aisle"].unique()
    return {str(department): sorted(aisles) for department, aisles in known.items()}


def _aisles(examples: pd.DataFrame, taught: Aisles) -> dict[str, Any]:
    """What there is of aisles, and those that a model can't answer for want of training products.

    Raises:
        ConfigError: too many aisles for a label set.
    """
    pairs = set(zip(examples["department"], examples["aisle"], strict=True))
    known = {pair for pair in pairs if pair[1]}
    return {
        "aisles": len(leaves(taught, taught)),
        "aisles_untaught": sorted(leaf_name(*pair) for pair in known - set(leaves(taught, taught))),
        "without_aisle": int((examples["aisle"] == "").sum()),
    }


def _say(report: dict[str, Any], labels: int, noun: str) -> None:
    """The split in a few lines."""
    sides = ", ".join(f"{side} {count:,}" for side, count in report["products"].items())
    console.say("build_dataset", f"{sides} products, {labels} {noun}s, no name on two sides")
    console.say(
        "build_dataset",
        f"{report['twins']:,} names of several products, {report['conflicts']:,} with several "
        f"{noun}s; {report['unlabelled']:,} unlabelled; {report['cut_names']:,} names cut",
    )
    if "aisles" in report:
        console.say(
            "build_dataset",
            f"{report['aisles']:,} aisles within the {noun}s; {report['without_aisle']:,} products "
            f"teach their {noun} alone, as they have no aisle",
        )
        if untaught := report["aisles_untaught"]:
            more = f" and {len(untaught) - _LISTED} more" if len(untaught) > _LISTED else ""
            console.say(
                "build_dataset",
                f"no training product in {'; '.join(untaught[:_LISTED])}{more}: the model can't "
                "answer these aisles",
            )
    if report["without_test"]:
        named = ", ".join(report["without_test"])
        console.say(
            "build_dataset",
            f"no test product in {named}: the gate will say no; add products, "
            f"raise split.test, or list it in catalogue.unlabelled",
        )
