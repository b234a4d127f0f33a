"""A tiny base, barely pretrained, and scorers on it: real parts for tests that need real tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from grocer import models
from grocer.encoding import Encoder
from grocer.levels import ONE_LEVEL
from grocer.prompts import Template, template
from grocer.scoring import Scorer
from grocer.settings import PromptConfig, TinyConfig

NAMES = [
    f"{style} {noun}"
    for style in ("Organic", "Fresh", "Golden", "Whole", "Crunchy", "Sweet", "Farm's", "Zero-Fat")
    for noun in ("Milk", "Bread", "Apple", "Banana Bread", "Oat Milk", "Cheddar Cheese", "Crème")
]
LABELS = ("bakery", "dairy eggs", "dry goods pasta", "produce")
# One department has none, one a single aisle, the others some that begin alike.
AISLES = {
    "dairy eggs": ("milk",),
    "dry goods pasta": ("dry pasta", "fresh pasta", "pasta sauce"),
    "produce": ("fresh fruits", "fresh vegetables", "packaged produce"),
}
SHAPE = TinyConfig(vocabulary=400, hidden=64, layers=2, heads=2, steps=10)


def encoder(
    tokenizer: Any, form: str = "llama2-chat", labels: Any = LABELS, aisles: Any = ONE_LEVEL
) -> Encoder:
    """An encoder with the real template of that form."""
    made: Template = template(PromptConfig.model_validate({"template": form}), aisles=bool(aisles))
    return Encoder(tokenizer, made, labels, aisles)


def random_adapter(base: Path, seed: int = 0, layers: Any = "all-linear") -> Any:
    """A 4-bit base with an adapter whose weights are noise, so that it changes every answer."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = models.load_nf4(base, torch.float32, "cpu")
    tuned = get_peft_model(
        model,
        LoraConfig(r=4, target_modules=layers, init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    return tuned.eval()


def scorer(base: Path, labels: Any = LABELS, aisles: Any = ONE_LEVEL, **options: Any) -> Scorer:
    """A scorer of a random adapter on the base."""
    coder = encoder(models.load_tokenizer(base), labels=labels, aisles=aisles)
    return Scorer(random_adapter(base), coder, **options)
