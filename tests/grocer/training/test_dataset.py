"""Training data: the same tokens packed and padded, and no silent truncation."""

from pathlib import Path

import pytest

from grocer.config.stages import TrainConfig
from grocer.errors import ConfigError
from grocer.model.base import load_tokenizer
from grocer.model.packing import IGNORE_INDEX
from grocer.model.prompts.tokenization import Encoder
from grocer.training.dataset import encode_products
from tests.fixtures.tiny_model import AISLES, encoder
from tests.fixtures.training_runs import products


def test_packed_and_padded_data_have_the_same_tokens(coder: Encoder) -> None:
    rows = products()
    rows.loc[0, "product_name"] = "米" * 180
    packed = encode_products(rows, coder, TrainConfig())
    padded = encode_products(rows, coder, TrainConfig(packing=False))
    for row, whole in zip(packed.dataset, padded.dataset, strict=True):
        assert [*coder.prefix, *row["suffix"], *row["completion"]] == whole["input_ids"]
        assert [t for t in whole["labels"] if t != IGNORE_INDEX] == row["completion"]
        assert whole["labels"][-len(row["completion"]) :] == row["completion"]
    assert packed.longest == max(map(len, padded.dataset["input_ids"]))
    assert packed.truncated_names == padded.truncated_names == 1


def test_completion_names_the_aisle_if_it_is_known(base: Path) -> None:
    coder = encoder(load_tokenizer(base), aisles=AISLES)
    rows = products(8).assign(aisle=["", "milk", "fresh pasta", "fresh fruits"] * 2)
    rows.loc[6, "aisle"] = "unknown"
    encoded = encode_products(rows, coder, TrainConfig())
    texts = [coder.tokenizer.decode(row["completion"]).strip() for row in encoded.dataset]
    assert texts[:4] == [
        "bakery </s>",
        "dairy eggs: milk </s>",
        "dry goods pasta: fresh pasta </s>",
        "produce: fresh fruits </s>",
    ]
    # An unknown aisle: the tokens of the department only, without EOS.
    assert texts[6] == "dry goods pasta:"
    assert encoded.dataset[6]["completion"][-1] != coder.tokenizer.eos_token_id


def test_products_longer_than_max_length_are_rejected(coder: Encoder) -> None:
    longest = encode_products(products(), coder, TrainConfig()).longest
    encode_products(products(), coder, TrainConfig(max_length=longest))
    with pytest.raises(ConfigError, match=rf"{longest} tokens, but train.max_length is"):
        encode_products(products(), coder, TrainConfig(max_length=longest - 1))
