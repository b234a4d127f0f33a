"""Scoring speed of constrained decoding, against three common methods on the same NF4 model.

    labels:   one forward pass per label, with the whole prompt each time
    generate: `model.generate` on a padded batch, greedy, as long as the longest label
    padded:   one forward pass on a padded batch of whole prompts, logits of the last token
    packed:   Grocer's scorer

The weights are random, which does not affect the speed. Prints one JSON line per model, the wider
one last. `ratio` is items/s, packed over generate.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from grocer.config.stages import PromptConfig
from grocer.inference.scorer import Scorer
from grocer.model.base import load_nf4
from grocer.model.prompt_template import template
from grocer.model.tiny_llama import make_tokenizer
from grocer.model.tokenization import Encoder

CATALOGUE = Path(__file__).parent.parent / "examples" / "catalogue"
SHAPES = {"tiny": (128, 2, 4), "wider": (512, 8, 8)}
BATCH = 32


def column(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def build(shape: str, tokenizer: Any, vocabulary: int) -> Any:
    """Return a Llama with random weights, loaded as NF4."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads = SHAPES[shape]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=hidden * 8 // 3 // 16 * 16,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_nf4(Path(folder), torch.float32, "cpu").eval()


def padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return left-padded token ids and their attention mask, int64 [prompts, width]."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def by_label(model: Any, encoder: Encoder, prompts: list[list[int]]) -> None:
    for prompt in prompts:
        for tokens in encoder.label_tokens:
            model(input_ids=torch.tensor([[*prompt, *tokens]]), logits_to_keep=len(tokens) + 1)


def by_generation(model: Any, encoder: Encoder, prompts: list[list[int]]) -> None:
    longest = max(map(len, encoder.label_tokens))
    for start in range(0, len(prompts), BATCH):
        ids, mask = padded(prompts[start : start + BATCH], encoder.tokenizer.pad_token_id)
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=longest,
            min_new_tokens=longest,
            do_sample=False,
        )


def by_padding(model: Any, encoder: Encoder, prompts: list[list[int]]) -> None:
    for start in range(0, len(prompts), BATCH):
        ids, mask = padded(prompts[start : start + BATCH], encoder.tokenizer.pad_token_id)
        model(input_ids=ids, attention_mask=mask, logits_to_keep=1)


def rate(work: Callable[[], object], items: int) -> float:
    """Return items per second, after one warm-up run."""
    work()
    started = time.perf_counter()
    work()
    return items / (time.perf_counter() - started)


def measure(
    shape: str, encoder: Encoder, names: list[str], items: dict[str, int]
) -> dict[str, Any]:
    model = build(shape, encoder.tokenizer, len(encoder.tokenizer))
    scorer = Scorer(model, encoder, token_budget=512)
    suffixes = encoder.suffixes(names)
    prompts = [[*encoder.prefix, *suffix] for suffix in suffixes]
    methods: dict[str, Callable[[int], object]] = {
        "labels": lambda n: by_label(model, encoder, prompts[:n]),
        "generate": lambda n: by_generation(model, encoder, prompts[:n]),
        "padded": lambda n: by_padding(model, encoder, prompts[:n]),
        "packed": lambda n: scorer.log_probabilities(scorer.encode(names[:n])),
    }
    with torch.inference_mode():
        rates = {
            method: rate(lambda w=work, n=items[method]: w(n), items[method])
            for method, work in methods.items()
        }
    mean = sum(map(len, suffixes)) / len(suffixes)
    return {
        "model": shape,
        "items_per_second": {method: round(value, 2) for method, value in rates.items()},
        "ratio": round(rates["packed"] / rates["generate"], 2),
        "ratio_to_labels": round(rates["packed"] / rates["labels"], 1),
        "ratio_to_padded": round(rates["packed"] / rates["padded"], 2),
        "prefix_tokens": len(encoder.prefix),
        "tokens_per_item": round(mean + len(encoder.trie.tokens), 2),
        "name_tokens": round(mean - len(encoder.suffixes(["a"])[0]) + 1, 2),
        "items": items,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE)
    parser.add_argument("--items", type=int, default=256, help="items for the packed scorer")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = column(options.catalogue / "products.csv", "product_name")
    labels = sorted(column(options.catalogue / "departments.csv", "department"))
    form = template(PromptConfig())
    # Trained without the instruction, so that the prompt has about as many tokens as with Llama's.
    tokenizer = make_tokenizer(names, template(PromptConfig(template="short")), labels, 4096)
    encoder = Encoder(tokenizer, form, labels)
    items = {
        "labels": max(options.items // 64, 1),
        "generate": options.items // 8,
        "padded": options.items // 8,
        "packed": options.items,
    }
    for shape in SHAPES:
        print(json.dumps(measure(shape, encoder, names[: options.items], items)), flush=True)


if __name__ == "__main__":
    main()
