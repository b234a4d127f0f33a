"""A real run of the command, from tables to a bundle, which then classifies a file.

The base model is too small to learn anything, so the gate has very low limits: these tests check
that the stages fit together, not the accuracy. tests/pipelines/local runs the same pipeline with a
gate that fails.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.main import execute

NOUNS = {
    "bakery": ("Bread", "Bagel", "Croissant", "Muffin", "Baguette"),
    "dairy eggs": ("Milk", "Butter", "Cheddar", "Yogurt", "Cream"),
    "missing": ("Thing",),
    "produce": ("Apple", "Banana", "Carrot", "Spinach", "Lemon"),
}
STYLES = [
    f"{first} {second}"
    for first in ("Organic", "Golden", "Fresh", "Farm's", "Crème")
    for second in ("Sweet", "Large", "Plain", "Mini", "Twin", "Winter")
]
SMALL = [
    *("tiny.hidden=64", "tiny.steps=10", "train.max_steps=10"),
    *("lora.r=4", "evaluation.sample_size=40"),
    "gate.min_test_products=20",
    *("predictor.strategy=ensemble", "gate.baselines=[]", "gate.min_department_recall=0.0"),
    *("gate.min_accuracy=0.01", "gate.max_ece=1.0"),
]


def write(path: Path, *rows: tuple) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Write the six files of the schema: 480 products, each in an order line, and one null."""
    folder = tmp_path_factory.mktemp("end to end") / "catalogue"
    folder.mkdir()
    departments = list(enumerate(NOUNS, 1))
    names = [
        (f"{style} {noun}", number)
        for style in STYLES
        for number, department in departments
        for noun in NOUNS[department]
    ]
    # Each department has one aisle with the same id.
    products = [(n, name, number, number) for n, (name, number) in enumerate(names, 1)]
    write(folder / "departments.csv", ("department_id", "department"), *departments)
    write(folder / "aisles.csv", ("aisle_id", "aisle"), *departments)
    header = ("product_id", "product_name", "aisle_id", "department_id")
    write(folder / "products.csv", header, *products)
    header = (
        *("order_id", "user_id", "eval_set", "order_number", "order_dow"),
        *("order_hour_of_day", "days_since_prior_order"),
    )
    orders = [(1, 1, "prior", 1, 0, 9, ""), *((n, 1, "prior", n, 1, 10, 7.0) for n in range(2, 40))]
    orders.append((40, 1, "train", 40, 2, 11, 30.0))
    write(folder / "orders.csv", header, *orders)
    header = ("order_id", "product_id", "add_to_cart_order", "reordered")
    lines = [(2 + n % 38, n, 1, n % 2) for n, *_ in products]
    write(folder / "order_products__prior.csv", header, (1, 1, 1, 0), *lines)
    write(folder / "order_products__train.csv", header, (40, 2, 1, 1))
    return folder


@pytest.fixture(scope="module")
def passed(catalogue):
    """Run the pipeline on the catalogue; return the process, and the output directory beside it."""
    command = [sys.executable, "-m", "pipelines.cli.main", "run", "--recipe", "tiny"]
    settings = [word for text in SMALL for word in ("--set", text)]
    ended = subprocess.run(
        [*command, "--data", str(catalogue), "--out", "passed", *settings],
        cwd=catalogue.parent,
        env={**os.environ, "GROCER_CACHE": str(catalogue.parent / "cache")},
        capture_output=True,
        text=True,
    )
    return ended, catalogue.parent / "passed"


def test_passed_run_deploys_the_model(passed):
    ended, out = passed
    assert (ended.returncode, ended.stderr) == (0, "")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["order_lines"] == {"read": 482, "with_nulls": 1, "kept": 481}
    assert (summary["products"], summary["departments"]) == (480, 4)
    assert sum(summary["split"].values()) == 450
    test = summary["metrics"]["test"]
    assert test["accuracy_low"] <= test["accuracy"] <= test["accuracy_high"]
    assert set(summary["baselines"]) == {"majority", "linear", "base_model"}
    assert summary["gate"]["passed"] is True
    bundle = Path(summary["bundle"]["path"])
    assert bundle.name == summary["bundle"]["digest"]
    for name in ("adapter_model.safetensors", "linear.npz", "bundle.json", "MODEL_CARD.md"):
        assert (bundle / name).is_file()
    predictions = json.loads((out / "artifacts" / "deploy" / "predictions.json").read_text())
    assert len(predictions) == 3
    assert all(each["department"] in NOUNS for each in predictions)
    for page in ("report.html", "validation.html", "split.html", "loss.html"):
        assert "<svg" in (out / page).read_text() or page == "validation.html"


def test_frameworks_print_nothing_to_the_console(passed):
    ended, _ = passed
    for line in ended.stdout.splitlines():
        assert not any(word in line for word in ("Warning", "it/s", "INFO", "KFP", "%|", "Loading"))


def test_bundle_classifies_a_file(passed, catalogue):
    _, out = passed
    (bundle,) = (out / "bundle").iterdir()
    target = catalogue.parent / "predictions.csv"
    command = ["classify", str(catalogue / "products.csv"), str(target)]
    assert execute([*command, "--bundle", str(bundle)]) == 0
    with target.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 480
    assert {row["predicted_department"] for row in rows} <= set(NOUNS) - {"missing"}
