"""Training data as token ids, for sequence packing or for padded batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grocer.config.stages import TrainConfig
from grocer.errors import ConfigError
from grocer.model.packing import IGNORE_INDEX
from grocer.model.tokenization import Encoder

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainingSet:
    """Tokenized products, one row each, and their lengths."""

    dataset: Dataset
    """With packing: columns `suffix` (token ids after the shared prefix) and `completion` (token
    ids, EOS included). Without: `input_ids` and `labels` of the whole prompt."""
    prefix: tuple[int, ...]
    sizes: NDArray[np.int64]
    """[products]: tokens of suffix and completion."""
    completion_tokens: int
    """Tokens of the longest completion."""
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
    if config.packing:
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
        completion_tokens=max(map(len, completions)),
        truncated_names=encoder.count_truncated(names),
    )
    if result.longest > config.max_length:
        raise ConfigError(
            f"the longest prompt with its completion has {result.longest} tokens, but "
            f"train.max_length is {config.max_length}; raise it, or lower prompt.max_name_tokens"
        )
    return result
