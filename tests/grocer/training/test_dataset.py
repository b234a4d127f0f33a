"""Protects what is learnt from: the same tokens packed and plain, and none cut in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from grocer.config.stages import TrainConfig
from grocer.errors import ConfigError
from grocer.model import base as models
from grocer.model.packing import IGNORE_INDEX
from grocer.model.tokenization import Encoder
from grocer.training.dataset import encode_products
from tests.fixtures.tiny_model import AISLES, encoder
from tests.fixtures.training_runs import products


@pytest.fixture(scope="module")
def coder(base: Path) -> Encoder:
    return encoder(models.load_tokenizer(base))


def test_packed_and_plain_hold_the_same_tokens(coder: Encoder) -> None:
    packed = encode_products(products(), coder, TrainConfig())
    plain = encode_products(products(), coder, TrainConfig(packing=False))
    for row, whole in zip(packed.dataset, plain.dataset, strict=True):
        assert [*coder.prefix, *row["suffix"], *row["completion"]] == whole["input_ids"]
        assert [t for t in whole["labels"] if t != IGNORE_INDEX] == row["completion"]
        assert whole["labels"][-len(row["completion"]) :] == row["completion"]
    assert packed.longest == max(map(len, plain.dataset["input_ids"]))


def test_an_aisle_is_learnt_where_it_is_known(base: Path) -> None:
    coder = encoder(models.load_tokenizer(base), aisles=AISLES)
    rows = products(8).assign(aisle=["", "milk", "fresh pasta", "fresh fruits"] * 2)
    rows.loc[6, "aisle"] = "never seen"
    made = encode_products(rows, coder, TrainConfig())
    eos = coder.tokenizer.eos_token_id
    spelled = [coder.tokenizer.decode(row["completion"]).strip() for row in made.dataset]
    assert spelled[:4] == [
        "bakery </s>",
        "dairy eggs: milk </s>",
        "dry goods pasta: fresh pasta </s>",
        "produce: fresh fruits </s>",
    ]
    # What tells the department, and nothing of an aisle that is not one.
    assert spelled[6] == "dry goods pasta:"
    assert made.dataset[6]["completion"][-1] != eos


def test_long_names_are_cut_and_counted(coder: Encoder) -> None:
    rows = products()
    rows.loc[0, "product_name"] = "米" * 180
    assert encode_products(rows, coder, TrainConfig()).names_truncated == 1


def test_a_product_longer_than_max_length_is_refused(coder: Encoder) -> None:
    longest = encode_products(products(), coder, TrainConfig()).longest
    encode_products(products(), coder, TrainConfig(max_length=longest))
    with pytest.raises(ConfigError, match=rf"has {longest} tokens, but train.max_length is"):
        encode_products(products(), coder, TrainConfig(max_length=longest - 1))
