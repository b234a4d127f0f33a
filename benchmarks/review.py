"""Wrong labels found by the review queue and by a random queue, and accuracy after corrections.

    .venv/bin/python benchmarks/review.py --data DIRECTORY

Replaces 3 % of the labels by seeded wrong ones, which are drawn by the frequency of the labels.
The queue does not see them; a simulated reviewer gives the true label of the first products in it.
The corrections go through the import, ingest and the split, as in a run. The linear model is then
fitted again, and its accuracy is measured against the true labels of the test products. The queue
is compared with an order by the probability of an error alone. `ratio` is wrong labels found in the
first reviews by the queue, divided by those that a random queue finds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import CATALOGUE
from grocer.artifacts.base import SIDES
from grocer.artifacts.counts import Counts
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.dataset.catalogue import read_catalogue
from grocer.dataset.run import run as build_dataset
from grocer.ingest.run import run as ingest
from grocer.model.linear.classifier import LinearModel, fit_linear
from grocer.model.prompts.product_names import name_key
from grocer.review.corrections_file import import_file
from grocer.review.queue import Candidate, build_queue, suspected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=str(CATALOGUE), help="catalogue, as for `grocer run`")
    parser.add_argument("--reviews", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--wrong", type=float, default=0.03, help="share of wrong labels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    config = recipe("smollm2").with_settings(options.set)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.data, config, options, Path(folder))
    print(json.dumps(result))


def measure(
    data: str, config: RunConfig, options: argparse.Namespace, folder: Path
) -> dict[str, object]:
    """Return the wrong labels found and the accuracies, by number of reviews."""
    truth, source = hide_labels(data, config, options, folder)
    columns = [f"data.columns.{name}={name}" for name in ("department", "aisle", "purchases")]
    config = config.with_settings(columns)
    splits = prepare(source, config, folder / "noisy")
    examples = pd.concat([splits[side] for side in SIDES], ignore_index=True)
    labels = sorted(examples["department"].unique())
    accuracy, model = test_accuracy(splits, labels, truth)
    suspects = suspected(examples, labels, model.c)
    queue = build_queue(suspects)
    wrong = {
        name_key(each.name) for each in queue if truth[name_key(each.name)] != each.previous_label
    }
    result: dict[str, object] = {
        "products": len(queue),
        "wrong": len(wrong),
        "accuracy": round(accuracy, 5),
    }
    for order in ("by_value", "by_probability"):
        queue = build_queue(suspects, by_probability=order == "by_probability")
        (folder / order).mkdir()
        reviews = review(queue, wrong, truth, source, config, options.reviews, folder / order)
        result[order] = reviews
        result.setdefault("ratio", next(iter(reviews.values()))["ratio"])
    return result


def review(
    queue: Sequence[Candidate],
    wrong: Collection[str],
    truth: dict[str, str],
    source: str,
    config: RunConfig,
    numbers: Sequence[int],
    folder: Path,
) -> dict[str, dict[str, float]]:
    """Return the wrong labels in the first reviews and the accuracy after their correction.

    Args:
        numbers: of reviews, ascending.
    """
    labels = sorted(set(truth.values()))
    share = len(wrong) / len(queue)
    result: dict[str, dict[str, float]] = {}
    corrections = folder / "corrections"
    for number in numbers:
        found = [each.purchases for each in queue[:number] if name_key(each.name) in wrong]
        reviewed = folder / f"reviewed-{number}.csv"
        with reviewed.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "label", "who", "previous_label"])
            for each in queue[:number]:
                label = truth[name_key(each.name)]
                writer.writerow([each.name, label, "reviewer", each.previous_label])
        import_file(reviewed, str(corrections), labels)
        corrected = config.with_settings([f"data.corrections={corrections}"])
        splits = prepare(source, corrected, folder / f"corrected-{number}")
        result[f"reviews_{number}"] = {
            "found": len(found),
            "purchases": sum(found),
            "random": round(share * number, 1),
            "ratio": round(len(found) / (share * number), 2),
            "accuracy": round(test_accuracy(splits, labels, truth)[0], 5),
        }
    return result


def hide_labels(
    data: str, config: RunConfig, options: argparse.Namespace, folder: Path
) -> tuple[dict[str, str], str]:
    """Write the catalogue with wrong labels; return the true labels by name, and its path."""
    (folder / "tables").mkdir()
    ingest(data, config.data, folder / "tables")
    products = pd.read_parquet(folder / "tables" / "products.parquet")
    examples = read_catalogue(products, config).examples
    random = np.random.default_rng(options.seed)
    shares = examples["department"].value_counts(normalize=True).sort_index()
    noisy = examples.copy()
    for row in np.flatnonzero(random.random(len(examples)) < options.wrong):
        others = shares.drop(examples.at[row, "department"])
        noisy.at[row, "department"] = random.choice(others.index, p=others / others.sum())
    noisy["aisle"] = noisy["department"]
    path = folder / "noisy.csv"
    noisy[["product_name", "department", "aisle", "purchases"]].to_csv(path, index=False)
    keys = examples["product_name"].map(name_key)
    return dict(zip(keys, examples["department"], strict=True)), str(path)


def prepare(source: str, config: RunConfig, out: Path) -> dict[str, pd.DataFrame]:
    """Return the sides of the split after ingest."""
    (out / "tables").mkdir(parents=True)
    (out / "splits").mkdir()
    ingest(source, config.data, out / "tables")
    build_dataset(Counts.read(out / "tables"), config, out / "splits")
    return {side: pd.read_parquet(out / "splits" / f"{side}.parquet") for side in SIDES}


def test_accuracy(
    splits: dict[str, pd.DataFrame], labels: list[str], truth: dict[str, str]
) -> tuple[float, LinearModel]:
    """Return the accuracy of a linear model on the true labels of test, and the model."""
    model = fit_linear(splits, labels)
    names = splits["test"]["product_name"].tolist()
    predicted = np.array(labels)[model.log_probabilities(names).argmax(axis=1)]
    return float(np.mean(predicted == [truth[name_key(name)] for name in names])), model


if __name__ == "__main__":
    main()
