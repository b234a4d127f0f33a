"""Tokenizers of GGUF files: the tokens, merges and splits that the metadata says."""

from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from hypothesis import given
from hypothesis import strategies as st

from grocer.errors import ModelError
from grocer.model.base import load_tokenizer
from grocer.model.sources.gguf.file import GgufFile
from grocer.model.sources.gguf.tokenizer import make_tokenizer
from tests.fixtures.gguf_files import CHAT_TEMPLATE, SPECIAL, byte_level_tokenizer, metadata
from tests.fixtures.tiny_model import NAMES


def converted(**changes: Any) -> Any:
    """Return the tokenizer of the metadata with changes; keys without `tokenizer.`."""
    values = metadata() | {f"tokenizer.{key}": value for key, value in changes.items()}
    present = {key: value for key, value in values.items() if value is not None}
    return make_tokenizer(GgufFile(Path("model.gguf"), present, ()))


def sentencepiece(**changes: Any) -> Any:
    """Return a tokenizer like Llama 2's with three words and bytes."""
    pieces = ["▁m", "il", "▁mil", "▁milk", "mil", "milk", "▁", *"milk12"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    kinds += [TokenType.NORMAL] * len(pieces)
    return converted(
        **{
            "ggml.model": "llama",
            "ggml.pre": None,
            "ggml.merges": None,
            "ggml.tokens": tokens,
            "ggml.token_type": [int(kind) for kind in kinds],
            "ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(pieces))],
            "ggml.padding_token_id": None,
            **changes,
        }
    )


SMOLLM, LLAMA2 = converted(), sentencepiece()
ORIGINAL = byte_level_tokenizer()
ORIGINAL.encode_special_tokens = True


def pieces(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_special_tokens_and_chat_template_are_those_of_the_file() -> None:
    ids = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    assert [getattr(SMOLLM, name) for name in ids] == [1, 2, 2, 0]
    assert SMOLLM.chat_template == CHAT_TEMPLATE
    assert SMOLLM("<|im_end|>")["input_ids"] == [2]
    assert 2 not in SMOLLM("<|im_end|>", split_special_tokens=True)["input_ids"]
    assert set(SMOLLM.added_tokens_encoder) == set(SPECIAL)


@given(st.text(max_size=30) | st.sampled_from(NAMES))
def test_smollm_equals_the_original_tokenizer(text: str) -> None:
    ids = SMOLLM(text, split_special_tokens=True)["input_ids"]
    assert ids == ORIGINAL.encode(text).ids
    assert SMOLLM.decode(ids) == text


def test_smollm_splits_each_digit_before_other_rules() -> None:
    merges = [*metadata()["tokenizer.ggml.merges"], "1 2", "Ċ Ċ"]
    tokens = [*metadata()["tokenizer.ggml.tokens"], "12", "ĊĊ"]
    changes = {"ggml.merges": merges, "ggml.tokens": tokens, "ggml.token_type": None}
    assert pieces(converted(**changes), "12\n\n12") == ["1", "2", "ĊĊ", "1", "2"]
    assert pieces(converted(**changes, **{"ggml.pre": "gpt-2"}), "12\n\n12") == [
        *("12", "Ċ", "Ċ", "12")
    ]


def test_llama3_splits_numbers_into_groups_of_three_digits() -> None:
    merges = [*metadata()["tokenizer.ggml.merges"], "1 2", "12 3", "3 4"]
    tokens = [*metadata()["tokenizer.ggml.tokens"], "12", "123", "34"]
    changes = {"ggml.pre": "llama-bpe", "ggml.merges": merges, "ggml.tokens": tokens}
    tokenizer = converted(**changes, **{"ggml.token_type": None, "ggml.add_bos_token": True})
    assert pieces(tokenizer, "1234") == ["<|im_start|>", "123", "4"]


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes() -> None:
    assert pieces(LLAMA2, "milk") == ["<s>", "▁milk"]
    assert pieces(LLAMA2, "milk milk") == ["<s>", "▁milk", "▁milk"]
    assert pieces(LLAMA2, "12é") == ["<s>", "▁", "1", "2", "<0xC3>", "<0xA9>"]
    assert LLAMA2.decode(LLAMA2("milk 12é")["input_ids"], skip_special_tokens=True) == "milk 12é"
    assert pieces(sentencepiece(**{"ggml.add_bos_token": False}), "milk") == ["▁milk"]
    assert pieces(sentencepiece(**{"ggml.add_space_prefix": False}), "milk") == ["<s>", "milk"]


@pytest.mark.parametrize("tokenizer", [SMOLLM, LLAMA2])
def test_saved_tokenizer_is_identical(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    copy = load_tokenizer(tmp_path)
    for text in (*NAMES, "  7-Up\n\n12 x 355 mL ½", "Crème 米 🫐", "</s><|im_end|>"):
        assert copy(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert copy.all_special_ids == tokenizer.all_special_ids


@pytest.mark.parametrize(
    "changes",
    [
        {"ggml.model": "bert"},
        {"ggml.pre": "qwen2"},
        {"ggml.pre": None},
        {"ggml.tokens": None},
        {"ggml.merges": None},
        {"ggml.merges": ["no such-token"]},
        {"ggml.merges": ["single"]},
        {"ggml.eos_token_id": 99_999},
        {"ggml.tokens": [*metadata()["tokenizer.ggml.tokens"][:-1], "a"]},
    ],
)
def test_unsupported_or_inconsistent_tokenizer_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"model\.gguf: "):
        converted(**changes)
