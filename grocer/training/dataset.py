"""Training products as token ids, for packed sequences or for TRL's padded batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grocer.config.stages import TrainConfig
from grocer.errors import ConfigError
from grocer.model.packing import IGNORED
from grocer.model.tokenization import Encoder

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainingSet:
    """One row a product, and how long the products are.

    `dataset` has `tail` (ids after the shared prefix) and `answer` (ids, EOS included) where
    batches are packed, else `input_ids` and `labels` of the whole prompt. `sizes` [products] are
    tokens of tail and answer; `names_cut` counts the names that were longer than their slot.
    """

    dataset: Dataset
    prefix: tuple[int, ...]
    sizes: NDArray[np.int64]
    answer_tokens: int
    names_cut: int

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer."""
        return len(self.prefix) + int(self.sizes.max())


def training_set(products: pd.DataFrame, encoder: Encoder, config: TrainConfig) -> TrainingSet:
    """Encode the columns `product_name`, `department` and, if there is one, `aisle` of `products`.

    A product whose aisle is none that the encoder knows teaches its department alone.

    Raises:
        ConfigError: a prompt and answer longer than `train.max_length`; nothing is cut for it.
    """
    from datasets import Dataset

    names = products["product_name"].tolist()
    shelves = dict(zip(encoder.labels, encoder.shelves, strict=True))
    aisles = products["aisle"] if "aisle" in products else [""] * len(products)
    tails = encoder.tails(names)
    answers = [
        list(shelves[department].answer(aisle))
        for department, aisle in zip(products["department"], aisles, strict=True)
    ]
    pairs = list(zip(tails, answers, strict=True))
    if config.packing:
        columns = {"tail": tails, "answer": answers}
    else:
        prefix = list(encoder.prefix)
        columns = {
            "input_ids": [[*prefix, *tail, *answer] for tail, answer in pairs],
            "labels": [[IGNORED] * (len(prefix) + len(tail)) + answer for tail, answer in pairs],
        }
    made = TrainingSet(
        dataset=Dataset.from_dict(columns),
        prefix=encoder.prefix,
        sizes=np.array([len(tail) + len(answer) for tail, answer in pairs]),
        answer_tokens=max(map(len, answers)),
        names_cut=encoder.cut(names),
    )
    if made.longest > config.max_length:
        raise ConfigError(
            f"the longest prompt and answer have {made.longest} tokens, train.max_length is "
            f"{config.max_length}; raise it, or lower prompt.max_name_tokens"
        )
    return made
