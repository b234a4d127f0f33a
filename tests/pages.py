"""Pages of every kind, filled so that they are hard to lay out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grocer import report
from grocer.ingest import ingest
from grocer.loss_page import loss_page
from grocer.recipes import recipe
from grocer.settings import GatePolicy, SplitConfig
from grocer.split_page import split_page
from grocer.validate import validate
from tests.csvs import tables, write_csvs

PAGES = (
    "report",
    "report, two levels",
    "report, 134 aisles",
    "report, Cyrillic",
    "validation",
    "validation, refused",
    "split",
    "split, 134 aisles",
    "loss",
    "loss, short",
)
CYRILLIC = {
    "bakery": "Хлеб и хлебобулочные изделия",
    "dairy eggs": "Молочные продукты и яйца",
    "produce": "Овощи и фрукты",
}
UNBROKEN = "Superkalifragilistisch" * 6
TRAINED = {
    "epochs": 2.0,
    "steps": 1200,
    "examples": 15_397,
    "device": "cpu",
    "resumed_from_step": 300,
    "processes": 2,
    "seconds": 93.4,
    "examples_per_second": 3.24,
    "tokens_per_second": 12_345.6,
    "cost": 0.123,
    "peak_memory_mb": 1234.5,
    "memory_of": "process",
    "parameters": 1_100_000,
    "trainable_parameters": 90_000,
    "losses": [{"step": 25 * i, "loss": 3 / i} for i in range(1, 49)],
    "validation_losses": [{"step": 600, "loss": 0.4}, {"step": 1200, "loss": 0.2}],
    "logging_steps": 25,
    "base": "meta-llama/Llama-2-7b-chat-hf",
    "compute_dtype": "float16: compute capability 7.5 has no bfloat16",
    "precision": "none",
    "prefix_tokens": 123,
    "longest_tokens": 45,
    "packing": True,
    "names_cut": 0,
}

DIVIDED = {
    "products": {"train": 80_000, "validation": 10_000, "test": 10_000},
    "purchases": {"train": 8_000_000, "validation": 0, "test": 1_234_567},
    "overlap": {"train_validation": 0, "train_test": 0, "validation_test": 0},
    "departments": {
        "dairy eggs": {"train": 79_000, "validation": 9_990, "test": 9_997},
        "produce": {"train": 990, "validation": 10, "test": 3},
        UNBROKEN: {"train": 10, "validation": 0, "test": 0},
    },
    "without_test": [UNBROKEN],
    "stratification": {
        "department": "dairy eggs",
        "side": "test",
        "products": 98_987,
        "share": 0.101,
        "expected": 0.1,
        "z": 1.04,
    },
    "digests": dict.fromkeys(("train", "validation", "test"), "0123456789abcdef" * 4),
    "conflicts": 12,
    "twins": 345,
    "unlabelled": 1_258,
    "cut_names": 0,
}


def make_pages(measured: Mapping[str, Any], root: Path) -> dict[str, str]:
    """The HTML of each of `PAGES`, from an evaluation of three departments; `root` is scratch."""
    refused = tables()
    refused["products"].append([5, UNBROKEN, 99, 99])
    return {
        "report": _report(measured),
        "report, two levels": _report(_levelled(measured)),
        "report, 134 aisles": _report(_many(measured, 134)),
        "report, Cyrillic": _report(_translated(measured)),
        "validation": _validation(root / "good", tables()),
        "validation, refused": _validation(root / "refused", refused),
        "split": split_page(DIVIDED, SplitConfig(), "department"),
        "split, 134 aisles": split_page(_aisled(DIVIDED), SplitConfig(), "aisle"),
        "loss": loss_page(TRAINED),
        "loss, short": loss_page(TRAINED | {"losses": [], "validation_losses": []}),
    }


def _report(evaluation: Mapping[str, Any]) -> str:
    """A report with products to recover, one of them with a name that no line can break."""
    recovered = pd.DataFrame(
        {
            "product_name": [UNBROKEN, "Late Kefir"],
            "suggested_department": evaluation["labels"][:2],
            "probability": [0.9999, 0.4],
            "purchases": [1_234_567, 1],
        }
    )
    if evaluation["aisles"]:
        recovered["suggested_aisle"] = "fresh herbs"
    return report.page(evaluation, recovered, GatePolicy())


def _levelled(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation with a second level of 14 aisles."""
    shelf = {"department": "dairy eggs", "aisle": "packaged cheese and cold desserts"}
    row = {**shelf, "support": 20, "recall": 0.5, "precision": None}
    mix_up = {**shelf, "said_department": "produce", "said_aisle": "herbs", "products": 3}
    return {
        **evaluation,
        "aisles": {
            "metrics": {"test": evaluation["metrics"]["test"] | {"accuracy_within": 0.9}},
            "linear": {"accuracy": 0.7},
            "aisles": [row] * 14,
            "mix_ups": [mix_up] * 12,
        },
    }


def _many(evaluation: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The evaluation as if its labels were so many aisles, each mistaken for the next."""
    labels = [f"frozen meat seafood {i}" for i in range(count)]
    row = {"support": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    table = np.eye(count, dtype=int) + np.roll(np.eye(count, dtype=int), 1, axis=1)
    return {
        **evaluation,
        "label": "aisle",
        "labels": labels,
        "departments": dict.fromkeys(labels, row),
        "confusion": table.tolist(),
    }


def _translated(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation with 39 departments of Cyrillic names: as many as a matrix may nearly have."""
    labels = [f"{name} {i}" for i in range(13) for name in CYRILLIC.values()]
    counts = np.array(evaluation["confusion"])
    errors = [
        error | {"department": CYRILLIC[error["department"]], "product_name": "Сметана домашняя"}
        for error in evaluation["confident_errors"]
    ]
    return {
        **evaluation,
        "labels": labels,
        "departments": {
            label: list(evaluation["departments"].values())[i % 3] for i, label in enumerate(labels)
        },
        "confusion": np.tile(counts, (13, 13)).tolist(),
        "confident_errors": errors,
    }


def _aisled(report: Mapping[str, Any]) -> dict[str, Any]:
    """The split as if its labels were so many aisles, with a second level besides."""
    sides = {"train": 80, "validation": 10, "test": 10}
    return {
        **report,
        "departments": {f"frozen meat seafood {i}": sides for i in range(134)},
        "without_test": [],
        "aisles": 134,
        "aisles_untaught": [f"{UNBROKEN}: herbs", "produce: herbs"],
        "without_aisle": 3,
    }


def _validation(root: Path, content: Mapping[str, Any]) -> str:
    """The page of a validation of these tables."""
    config = recipe("tiny").with_settings(
        ["validation.min_products=2", "validation.max_null_fraction=0.3", "data.threads=1"]
    )
    for part in ("in", "tables", "out"):
        (root / part).mkdir(parents=True)
    ingest(str(write_csvs(root / "in", content)), config.data, root / "tables")
    validate(root / "tables", config, root / "out")
    return (root / "out" / "validation.html").read_text(encoding="utf-8")
