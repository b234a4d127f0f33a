"""Tokenization of prompts and completions.

With the forms `llama2-chat` and `short`, tokens can span the boundary between two strings, so
whole prompts are tokenized, never parts that are joined. The shared prefix is the longest common
prefix of the token ids of several prompts. `grocer.model.prompts.chat` has the form `chat`, where
the base's special tokens separate the parts.
"""

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
from grocer.model.prompts.chat import ChatPrompt, tokenize
from grocer.model.prompts.template import PROBE_NAMES, Template

_BATCH_SIZE = 1024


class TextPrompt:
    """Prompts that are plain text; whole prompts are tokenized, and BOS is added."""

    def __init__(self, tokenizer: Any, template: Template, labels: Sequence[str]) -> None:
        self._tokenizer, self._template, self._labels = tokenizer, template, labels
        bos = [tokenizer.bos_token_id]
        # Some tokenizers do not add BOS by default.
        self._bos = bos if tokenizer("a")["input_ids"][:1] == bos else []
        prompts = [template.render(name, labels) for name in PROBE_NAMES]
        probes = self._tokenize(prompts)
        # A tokenizer can merge white space with the word after it, so the prefix ends before it.
        (start,) = self._tokenize(["".join(common_prefix(prompts)).rstrip()])
        self.prefix = tuple(common_prefix([start, *probes]))
        reverse = [ids[len(self.prefix) :][::-1] for ids in probes]
        self.close = common_prefix(reverse)[::-1]

    def encode(self, names: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each name's whole prompt."""
        return self._tokenize([self._template.render(name, self._labels) for name in names])

    def encode_with(self, names: Sequence[str], completions: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts with any completion, without EOS."""
        render, complete = self._template.render, self._template.completion
        pairs = zip(names, completions, strict=True)
        return self._tokenize([render(name, self._labels) + complete(text) for name, text in pairs])

    def completion(self, label: str) -> tuple[int, ...]:
        """Return the token ids of a label's completion, without EOS.

        Raises:
            ModelError: the tokens depend on the prompt.
        """
        variants = set()
        for name in ("a", "7", "Ж"):
            prompt = self._template.render(name, self._labels)
            ids, whole = self._tokenize([prompt, prompt + self._template.completion(label)])
            if whole[: len(ids)] != ids:
                raise ModelError(
                    f"the base's tokenizer merges the end of the prompt with label {label!r}; "
                    "choose another prompt.template"
                )
            variants.add(tuple(whole[len(ids) :]))
        if len(variants) > 1:
            raise ModelError(f"the tokens of label {label!r} depend on the product name")
        return variants.pop()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole prompts; special tokens in a text stay plain text."""
        return [self._bos + ids for ids in tokenize(self._tokenizer, texts)]


class Encoder:
    """Encodes product names and labels for one tokenizer, template and label set.

    Attributes:
        prefix: token ids that every prompt starts with.
        close: token ids that every prompt ends with.
        completions: the token sequences of each label's completions.
        label_tokens: the shared prefix of each label's completions; `trie` is built from them.
        leaves: every label with each of its aisles.
    """

    def __init__(
        self, tokenizer: Any, template: Template, labels: Sequence[str], aisles: Aisles = ONE_LEVEL
    ) -> None:
        """Compute the shared prefix and the tokens of every completion.

        Raises:
            ModelError: no EOS token, no usable chat template, or completions whose tokens depend
                on the product name.
            ConfigError: two labels have the same tokens, or one is a prefix of another.
        """
        if tokenizer.eos_token_id is None:
            raise ModelError("the base's tokenizer has no EOS token; choose another base")
        self.tokenizer, self.template, self.labels = tokenizer, template, tuple(labels)
        self.aisles, self.leaves = aisles, leaves(self.labels, aisles)
        form: type[ChatPrompt | TextPrompt] = ChatPrompt if template.form == "chat" else TextPrompt
        self._prompt = form(tokenizer, template, self.labels)
        self.prefix, self.close = self._prompt.prefix, self._prompt.close
        self.completions = tuple(self._label_completions(label) for label in self.labels)
        self.label_tokens = tuple(completion.prefix for completion in self.completions)
        self.trie = label_trie(self.labels, self.label_tokens)
        self._max_tokens = len(self.prefix) + template.max_name_tokens + len(self.close)

    def suffixes(self, names: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each name's prompt after the shared prefix.

        Names of more than `template.max_name_tokens` tokens are truncated.

        Raises:
            ModelError: a name changed the tokens of the prefix.
        """
        return [self._suffix(ids) for ids in self._prompts(names)]

    def suffixes_with(self, names: Sequence[str], completions: Sequence[str]) -> list[list[int]]:
        """Return the token ids after the prefix of prompts with any completion, EOS included."""
        start, eos = len(self.prefix), self.tokenizer.eos_token_id
        return [[*ids[start:], eos] for ids in self._prompt.encode_with(names, completions)]

    def count_truncated(self, names: Sequence[str]) -> int:
        """Return how many names have more than `template.max_name_tokens` tokens."""
        return sum(len(ids) > self._max_tokens for ids in self._prompts(names))

    def _prompts(self, names: Sequence[str]) -> Iterator[list[int]]:
        """Yield the token ids of whole prompts, tokenized in batches to limit memory."""
        for start in range(0, len(names), _BATCH_SIZE):
            yield from self._prompt.encode(names[start : start + _BATCH_SIZE])

    def _suffix(self, ids: list[int]) -> list[int]:
        start = len(self.prefix)
        if tuple(ids[:start]) != self.prefix:
            raise ModelError(
                "a product name changed the tokens of the prompt's instruction; choose another "
                "prompt.template or base"
            )
        if len(ids) > self._max_tokens:
            return ids[start : self._max_tokens - len(self.close)] + self.close
        return ids[start:]

    def _label_completions(self, label: str) -> LabelCompletions:
        names = completion_labels([label], self.aisles)
        eos = self.tokenizer.eos_token_id
        sequences = [(*self._prompt.completion(name), eos) for name in names]
        return label_completions(self.aisles.get(label, ()), sequences)
