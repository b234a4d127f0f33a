"""Artifacts of a run that never trained: whole, consistent, with weights that mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grocer.bundle import Bundle, write_bundle
from grocer.config import RunConfig
from grocer.files import write_json
from grocer.prompts import template
from grocer.recipes import tiny
from grocer.step import digest_of, step

LABELS = ["bakery", "dairy eggs", "produce"]
# Of a bundle with two levels; bakery has none.
AISLES = {"dairy eggs": ["milk", "yogurt"], "produce": ["fresh fruits", "fresh herbs"]}


def measures(accuracy: float = 0.9) -> dict[str, Any]:
    return {
        "products": 300,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.03,
        "accuracy_high": accuracy + 0.03,
        "macro_f1": accuracy,
    }


def aisles_measured() -> dict[str, Any]:
    """What an evaluation tells of the second level, as far as a bundle reads it."""
    test = measures(0.7) | {"accuracy_within": 0.8}
    return {
        "temperature": 1.5,
        "labels": {label: AISLES.get(label, []) for label in LABELS},
        "metrics": {"test": test},
        "linear": measures(0.75),
    }


def write_model(
    out: Path, config: RunConfig, weights: bytes = b"weights", base: Path | None = None
) -> Path:
    """A train artifact; a real one, with a random adapter, where a `base` is given."""
    with step("train", out) as part:
        write_json(part / "labels.json", LABELS)
        if config.catalogue.levels == 2:
            write_json(part / "aisles.json", AISLES)
        write_json(part / "template.json", template(config.prompt).model_dump(mode="json"))
        if base is not None:
            _write_real(part, base)
            return out
        (part / "adapter").mkdir()
        (part / "adapter/adapter_model.safetensors").write_bytes(weights)
        write_json(part / "adapter/adapter_config.json", {"r": 4})
        write_json(part / "adapter/tokenizer.json", {})
        (part / "adapter/README.md").write_text("not wanted in a bundle")
        write_json(
            part / "base.json", {"source": "tiny", "revision": None, "digest": "0123456789abcdef"}
        )
    return out


def _write_real(part: Path, base: Path) -> None:
    from grocer import models
    from tests.tinies import random_adapter

    random_adapter(base).save_pretrained(part / "adapter")
    models.load_tokenizer(base).save_pretrained(part / "adapter")
    models.copy_base(base, part / "base")
    reference = {"source": "tiny", "revision": None, "digest": models.base_digest(base)}
    write_json(part / "base.json", reference)


def write_evaluation(
    out: Path, model: Path, splits: Path, aisles: Mapping[str, Any] | None = None
) -> Path:
    share = 1 / len(LABELS)
    with step("evaluate", out) as part:
        write_json(
            part / "evaluation.json",
            {
                "schema": 1,
                "digests": {"model": digest_of(model), "splits": digest_of(splits)},
                "labels": LABELS,
                "metrics": {
                    side: measures() | {"top3_accuracy": 1.0, "ece": 0.02, "log_loss": 0.3}
                    for side in ("train", "validation", "test")
                },
                "departments": {
                    label: {"support": 100, "precision": 0.9, "recall": 0.9, "f1": 0.9}
                    for label in LABELS
                },
                "calibration": {"temperature": 1.25, "reliability": []},
                "baselines": {"majority": measures(0.3), "linear": measures(0.85)},
                "aisles": aisles,
                "confident_errors": [{"product_name": "Secret Sauce"}],
                "reference": {
                    "departments": dict.fromkeys(LABELS, share),
                    "mean_confidence": 0.9,
                },
            },
        )
    return out


def write_decision(out: Path, digests: Mapping[str, str], *, passed: bool = True) -> Path:
    reason = {
        "rule": "min_accuracy",
        "passed": passed,
        "sentence": "test accuracy's lower bound 0.870 is "
        + ("at least 0.85" if passed else "below 0.95"),
    }
    with step("gate", out) as part:
        write_json(
            part / "decision.json",
            {"passed": passed, "reasons": [reason], "policy": {}, "digests": dict(digests)},
        )
    return out


def write_artifacts(
    root: Path, config: RunConfig | None = None, *, passed: bool = True, base: Path | None = None
) -> dict[str, Path]:
    """The artifacts `model`, `splits`, `evaluation` and `decision` below `root`."""
    config = config or tiny()
    with step("prompts", root / "splits") as part:
        write_json(part / "split.json", {"products": {"train": 1}})
    splits = root / "splits"
    model = write_model(root / "model", config, base=base)
    aisles = aisles_measured() if config.catalogue.levels == 2 else None
    evaluation = write_evaluation(root / "evaluation", model, splits, aisles)
    found = {"model": model, "splits": splits, "evaluation": evaluation}
    digests = {name: digest_of(path) for name, path in found.items()}
    return {**found, "decision": write_decision(root / "decision", digests, passed=passed)}


def make_bundle(root: Path, config: RunConfig | None = None, base: Path | None = None) -> Bundle:
    """A bundle that every check accepts, below `root`; real where a `base` is given."""
    config = config or tiny()
    artifacts = write_artifacts(root / "artifacts", config, base=base)
    return write_bundle(**artifacts, config=config, root=root)
