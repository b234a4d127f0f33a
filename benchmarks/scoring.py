"""Scoring speed of constrained decoding, against three common methods on the same NF4 model.

    .venv/bin/python benchmarks/scoring.py [--base smollm2] [--items 256]
    .venv/bin/python benchmarks/scoring.py --base random:tiny --items 16   # seconds

    labels:   one forward pass per label, with the whole prompt each time
    generate: `model.generate` on a padded batch, greedy, as long as the batch's longest label
    padded:   one forward pass on a padded batch of whole prompts, logits of the last token
    packed:   Grocer's scorer

There is no adapter, which does not affect the comparison. The last line is one JSON object; `ratio`
is names/s of `packed` over `generate`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import bases
from grocer.config.recipes import recipe
from grocer.inference.scorer import Scorer
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.device import choose_compute_dtype, choose_device, cpu_threads
from grocer.model.prompts.template import template
from grocer.model.prompts.tokenization import Encoder

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="smollm2", help=bases.HELP)
    parser.add_argument("--catalogue", type=Path, default=bases.CATALOGUE)
    parser.add_argument("--items", type=int, default=256, help="names for the packed scorer")
    parser.add_argument("--threads", type=int, default=cpu_threads())
    parser.add_argument("--token-budget", type=int, default=1024, help="tokens of a packed pass")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = recipe("smollm2").with_settings(options.set)
    device = choose_device(config.base.device)
    dtype, reason = choose_compute_dtype(config.base.compute_dtype, device)
    names, departments, labels = bases.catalogue(options.catalogue)
    with tempfile.TemporaryDirectory() as scratch:
        directory = bases.find(options.base, Path(scratch))
        model = load_nf4(directory, dtype, device).eval()
        tokenizer = load_tokenizer(directory)
    encoder = Encoder(tokenizer, template(config.prompt), labels)
    items = {
        "labels": max(options.items // 64, 1),
        "generate": max(options.items // 8, 1),
        "padded": max(options.items // 8, 1),
        "packed": options.items,
    }
    truth = [labels.index(department) for department in departments]
    rates = measure(model, encoder, names, truth, items, options.token_budget)
    suffixes = encoder.suffixes(names[: options.items])
    print(
        json.dumps(
            {
                "ratio": rates["packed"] / rates["generate"],
                "ratio_to_labels": rates["packed"] / rates["labels"],
                "ratio_to_padded": rates["packed"] / rates["padded"],
                "base": options.base,
                "dtype": reason,
                "names_per_second": rates,
                "items": items,
                "prefix_tokens": len(encoder.prefix),
                "tokens_per_name": sum(map(len, suffixes)) / len(suffixes)
                + len(encoder.trie.tokens),
            }
        )
    )


def measure(
    model: Any,
    encoder: Encoder,
    names: Sequence[str],
    truth: Sequence[int],
    items: dict[str, int],
    token_budget: int,
) -> dict[str, float]:
    """Return names per second of each method in `items`, on its number of names.

    Args:
        truth: index of each name's label, which says how many tokens `generate` has to produce.
    """
    suffixes = encoder.suffixes(names[: max(items.values())])
    prompts = [[*encoder.prefix, *suffix] for suffix in suffixes]
    lengths = [len(encoder.label_tokens[label]) for label in truth]

    def packed(count: int) -> object:
        return scorer.log_probabilities(scorer.encode(names[:count]))

    methods: dict[str, Callable[[int], object]] = {
        "labels": lambda n: by_label(model, encoder, prompts[:n]),
        "generate": lambda n: by_generation(model, encoder, prompts[:n], lengths),
        "padded": lambda n: by_padding(model, encoder, prompts[:n]),
    }
    with torch.inference_mode():
        rates = {name: rate(work, items[name]) for name, work in methods.items() if name in items}
        # Last, because it changes the model's attention.
        scorer = Scorer(model, encoder, token_budget=token_budget)
        if "packed" in items:
            rates["packed"] = rate(packed, items["packed"])
    return rates


def by_label(model: Any, encoder: Encoder, prompts: list[list[int]]) -> None:
    for prompt in prompts:
        for tokens in encoder.label_tokens:
            ids = torch.tensor([[*prompt, *tokens]], device=model.device)
            model(input_ids=ids, logits_to_keep=len(tokens) + 1)


def by_generation(
    model: Any, encoder: Encoder, prompts: list[list[int]], lengths: Sequence[int]
) -> None:
    for start in range(0, len(prompts), BATCH):
        inputs = padded(model, encoder, prompts[start : start + BATCH])
        longest = max(lengths[start : start + BATCH])
        # As many tokens as a perfect adapter would generate; a random model never stops.
        model.generate(**inputs, max_new_tokens=longest, min_new_tokens=longest, do_sample=False)


def by_padding(model: Any, encoder: Encoder, prompts: list[list[int]]) -> None:
    for start in range(0, len(prompts), BATCH):
        model(**padded(model, encoder, prompts[start : start + BATCH]), logits_to_keep=1)


def padded(model: Any, encoder: Encoder, prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return left-padded token ids and their attention mask, int64 [prompts, width]."""
    pad, width = encoder.tokenizer.pad_token_id, max(map(len, prompts))
    ids = [[pad] * (width - len(p)) + p for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    return {name: tensor.to(model.device) for name, tensor in tensors.items()}


def rate(work: Callable[[int], object], items: int) -> float:
    """Return names per second, after one warm-up run."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        work(items)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return items / seconds[-1]


if __name__ == "__main__":
    main()
