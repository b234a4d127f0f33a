"""Training data as token ids, for sequence packing or for padded batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grocer.config.stages import TrainConfig
from grocer.errors import ConfigError
from grocer.model.label_trie import Choice
from grocer.model.packing import IGNORE_INDEX
from grocer.model.prompts.tokenization import Encoder

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainingSet:
    """Tokenized products, one row each, and their lengths."""

    dataset: Dataset
    """With packing: columns `suffix` (token ids after the shared prefix) and `completion` (token
    ids, EOS included); with `train.loss=label` the completion ends before its last choice, and
    `offsets`, `targets` and `nodes` have the offset, token and node of each choice. Without
    packing: `input_ids` and `labels` of the whole prompt."""
    prefix: tuple[int, ...]
    sizes: NDArray[np.int64]
    """[products]: tokens of suffix and completion."""
    completion_tokens: int
    """Tokens of the longest completion."""
    nodes: tuple[tuple[int, ...], ...]
    """Candidate tokens of each choice, by number; empty unless `train.loss=label`."""
    truncated_names: int
    """Names that were longer than `template.max_name_tokens`."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its completion."""
        return len(self.prefix) + int(self.sizes.max())


def encode_products(products: pd.DataFrame, encoder: Encoder, config: TrainConfig) -> TrainingSet:
    """Tokenize the columns `product_name`, `department` and, if present, `aisle`.

    The completion of a product with an unknown aisle ends after the tokens of its department. A
    prompt and completion of more than `train.max_length` tokens are a ConfigError.
    """
    from datasets import Dataset

    names = products["product_name"].tolist()
    by_label = dict(zip(encoder.labels, encoder.completions, strict=True))
    aisles = products["aisle"] if "aisle" in products else [""] * len(products)
    suffixes = encoder.suffixes(names)
    completions = [
        list(by_label[department].tokens(aisle))
        for department, aisle in zip(products["department"], aisles, strict=True)
    ]
    nodes: tuple[tuple[int, ...], ...] = ()
    if config.loss == "label":
        choices = _choices(products["department"], aisles, encoder)
        nodes = tuple(dict.fromkeys(choice.candidates for each in choices for choice in each))
        number = {candidates: i for i, candidates in enumerate(nodes)}
        completions = [c[: each[-1].offset] for c, each in zip(completions, choices, strict=True)]
        columns = {
            "suffix": suffixes,
            "completion": completions,
            "offsets": [[choice.offset for choice in each] for each in choices],
            "targets": [[choice.token for choice in each] for each in choices],
            "nodes": [[number[choice.candidates] for choice in each] for each in choices],
        }
    elif config.packing:
        columns = {"suffix": suffixes, "completion": completions}
    else:
        prompts = [[*encoder.prefix, *suffix] for suffix in suffixes]
        rows = list(zip(prompts, completions, strict=True))
        columns = {
            "input_ids": [[*prompt, *completion] for prompt, completion in rows],
            "labels": [[IGNORE_INDEX] * len(prompt) + completion for prompt, completion in rows],
        }
    result = TrainingSet(
        dataset=Dataset.from_dict(columns),
        prefix=encoder.prefix,
        sizes=np.array([*map(len, suffixes)]) + np.array([*map(len, completions)]),
        completion_tokens=max(1, *map(len, completions)),
        nodes=nodes,
        truncated_names=encoder.count_truncated(names),
    )
    if result.longest > config.max_length:
        raise ConfigError(
            f"the longest prompt with its completion has {result.longest} tokens, but "
            f"train.max_length is {config.max_length}; raise it, or lower prompt.max_name_tokens"
        )
    return result


def _choices(
    departments: Iterable[str], aisles: Iterable[str], encoder: Encoder
) -> list[list[Choice]]:
    """Return the choices of constrained decoding on the way to each product's label."""
    index = {label: i for i, label in enumerate(encoder.labels)}

    @cache
    def choices(department: str, aisle: str) -> list[Choice]:
        label = index[department]
        return encoder.trie.choices(label) + encoder.completions[label].choices(aisle)

    return list(map(choices, departments, aisles))
