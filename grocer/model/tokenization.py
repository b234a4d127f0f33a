"""Tokenization of prompts and completions; only this module calls the tokenizer.

Tokens can span the boundary between two strings, so whole prompts are tokenized, never parts that
are joined. The shared prefix is the longest common prefix of the token ids of several prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from grocer.errors import ModelError
from grocer.model.hierarchy import (
    ONE_LEVEL,
    Aisles,
    LabelCompletions,
    common_prefix,
    completion_labels,
    label_completions,
    leaves,
)
from grocer.model.label_trie import label_trie
from grocer.model.prompt_template import Template

# Names that start and end in as many ways as a tokenizer can distinguish: letters of both cases,
# a digit, punctuation, accents, other scripts, and bytes that no vocabulary holds as one token.
_PROBES = ("a", "Z", "7", "-", "'s", "(x)", "é", "Ж", "米", "🫐", "the best", "]", "e]")
_BATCH_SIZE = 1024


class Encoder:
    """Encodes product names and labels for one tokenizer, template and label set.

    Attributes:
        prefix: token ids that every prompt starts with.
        completions: the token sequences of each label's completions.
        label_tokens: the shared prefix of each label's completions; `trie` is built from them.
        leaves: every label with each of its aisles.
    """

    def __init__(
        self, tokenizer: Any, template: Template, labels: Sequence[str], aisles: Aisles = ONE_LEVEL
    ) -> None:
        """Compute the shared prefix and the tokens of every completion.

        Raises:
            ModelError: no EOS token, or completions whose tokens depend on the product name.
            ConfigError: two labels have the same tokens, or one is a prefix of another.
        """
        if tokenizer.eos_token_id is None:
            raise ModelError("the base's tokenizer has no EOS token; choose another base")
        self.tokenizer, self.template, self.labels = tokenizer, template, tuple(labels)
        self.aisles, self.leaves = aisles, leaves(self.labels, aisles)
        bos = [tokenizer.bos_token_id]
        # Some tokenizers do not add BOS by default.
        self._bos = bos if tokenizer("a")["input_ids"][:1] == bos else []
        prompts = [template.render(name, labels) for name in _PROBES]
        probes = self._tokenize(prompts)
        # A tokenizer merges a space with the word after it, so the prefix ends before the space.
        (start,) = self._tokenize(["".join(common_prefix(prompts)).rstrip()])
        self.prefix = tuple(common_prefix([start, *probes]))
        reverse = [ids[len(self.prefix) :][::-1] for ids in probes]
        self._close = common_prefix(reverse)[::-1]
        self.completions = tuple(self._label_completions(label) for label in self.labels)
        self.label_tokens = tuple(completion.prefix for completion in self.completions)
        self.trie = label_trie(self.labels, self.label_tokens)

    def suffixes(self, names: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each name's prompt after the shared prefix.

        Names of more than `template.max_name_tokens` tokens are truncated.

        Raises:
            ModelError: a name changed the tokens of the prefix.
        """
        return [self._suffix(ids) for ids in self._prompts(names)]

    def suffixes_with(self, names: Sequence[str], completions: Sequence[str]) -> list[list[int]]:
        """Return the token ids after the prefix of prompts with any completion, EOS included."""
        texts = [
            self.template.render(name, self.labels) + self.template.completion(completion)
            for name, completion in zip(names, completions, strict=True)
        ]
        eos = self.tokenizer.eos_token_id
        return [[*ids[len(self.prefix) :], eos] for ids in self._tokenize(texts)]

    def count_truncated(self, names: Sequence[str]) -> int:
        """Return how many names have more than `template.max_name_tokens` tokens."""
        return sum(len(ids) > self._max_tokens for ids in self._prompts(names))

    def _prompts(self, names: Sequence[str]) -> Iterator[list[int]]:
        """Yield the token ids of whole prompts, tokenized in batches to limit memory."""
        for start in range(0, len(names), _BATCH_SIZE):
            batch = names[start : start + _BATCH_SIZE]
            yield from self._tokenize([self.template.render(name, self.labels) for name in batch])

    def _suffix(self, ids: list[int]) -> list[int]:
        start = len(self.prefix)
        if tuple(ids[:start]) != self.prefix:
            raise ModelError(
                "a product name changed the tokens of the prompt's instruction; choose another "
                "prompt.template or base"
            )
        if len(ids) > self._max_tokens:
            return ids[start : self._max_tokens - len(self._close)] + self._close
        return ids[start:]

    @property
    def _max_tokens(self) -> int:
        """Maximum tokens of a prompt."""
        return len(self.prefix) + self.template.max_name_tokens + len(self._close)

    def _label_completions(self, label: str) -> LabelCompletions:
        sequences = [self._completion(name) for name in completion_labels([label], self.aisles)]
        return label_completions(self.aisles.get(label, ()), sequences)

    def _completion(self, label: str) -> tuple[int, ...]:
        variants = set()
        for name in ("a", "7", "Ж"):
            prompt = self.template.render(name, self.labels)
            ids, whole = self._tokenize([prompt, prompt + self.template.completion(label)])
            if whole[: len(ids)] != ids:
                raise ModelError(
                    f"the base's tokenizer merges the end of the prompt with label {label!r}; "
                    "choose another prompt.template"
                )
            variants.add((*whole[len(ids) :], self.tokenizer.eos_token_id))
        if len(variants) > 1:
            raise ModelError(f"the tokens of label {label!r} depend on the product name")
        return variants.pop()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole prompts; special tokens in a text stay plain text."""
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [self._bos + ids for ids in encoded["input_ids"]]
