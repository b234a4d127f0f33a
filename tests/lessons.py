"""Splits of a few products, and runs on the tiny base: what tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from grocer.config import RunConfig
from grocer.files import write_json
from grocer.prompts import template
from grocer.recipes import recipe
from grocer.settings import PromptConfig
from tests.tinies import AISLES, LABELS, NAMES


def products(count: int = 40) -> pd.DataFrame:
    """Products of four departments, which mean nothing."""
    names = [f"{name} {number}" for number in (1, 2) for name in NAMES][:count]
    labels = [LABELS[i % len(LABELS)] for i in range(count)]
    return pd.DataFrame({"product_name": names, "department": labels})


def splits(root: Path, count: int = 40) -> Path:
    """What the prompts step writes, as far as training reads it."""
    root.mkdir()
    products(count).to_parquet(root / "train.parquet")
    products()[-6:].to_parquet(root / "validation.parquet")
    write_json(root / "labels.json", list(LABELS))
    write_json(root / "template.json", template(PromptConfig()).model_dump())
    return root


def levelled(root: Path) -> Path:
    """The same with aisles, dealt out in turn to the products of a department that has any."""
    splits(root)
    for side in ("train", "validation"):
        rows = pd.read_parquet(root / f"{side}.parquet")
        aisles = [
            AISLES[label][i % len(AISLES[label])] if label in AISLES else ""
            for i, label in enumerate(rows["department"])
        ]
        rows.assign(aisle=aisles).to_parquet(root / f"{side}.parquet")
    write_json(root / "aisles.json", AISLES)
    write_json(root / "template.json", template(PromptConfig(), aisles=True).model_dump())
    return root


def lesson(base: Path, *settings: str) -> RunConfig:
    """A run of six steps on the base."""
    return recipe("tiny").with_settings(
        [
            f"base.source={base}",
            "lora.r=4",
            "train.threads=1",
            "train.num_train_epochs=1",
            "train.max_steps=6",
            "train.per_device_train_batch_size=4",
            "train.logging_steps=1",
            "train.save_steps=2",
            *settings,
        ]
    )


def adapter(model: Path) -> dict[str, Any]:
    return load_file(model / "adapter" / "adapter_model.safetensors")


def difference(one: Path, other: Path) -> float:
    """The largest difference between two adapters' weights."""
    left, right = adapter(one), adapter(other)
    assert left.keys() == right.keys()
    return max(float((left[key].float() - right[key].float()).abs().max()) for key in left)


def moved(model: Path) -> bool:
    """Whether the adapter is no longer what it began as: B began as zeros."""
    return any(torch.any(v != 0) for k, v in adapter(model).items() if "lora_B" in k)
