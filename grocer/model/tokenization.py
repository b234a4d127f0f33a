"""Token ids of prompts and answers: the one place that calls a tokenizer.

Pieces of text merge at their borders, so nothing is ever tokenised apart: whole prompts are,
and the shared prefix is the longest common prefix of their token ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from grocer.errors import ModelError
from grocer.model.hierarchy import ONE_LEVEL, Aisles, Shelf, leaves, shelf, spelled
from grocer.model.label_trie import LabelTrie, label_trie
from grocer.model.prompt_template import Template

# Names that begin and end in as many ways as a tokenizer can tell: letters of both cases, a
# digit, punctuation, accents, another script, and bytes that no vocabulary holds whole.
_PROBES = ("a", "Z", "7", "-", "'s", "(x)", "é", "Ж", "米", "🫐", "the best", "]", "e]")
_AT_ONCE = 1024


class Encoder:
    """Encodes products and answers for one tokenizer, template and label set."""

    def __init__(
        self, tokenizer: Any, template: Template, labels: Sequence[str], aisles: Aisles = ONE_LEVEL
    ) -> None:
        """Find the shared prefix and the answers' tokens.

        `answers` has, for each label, what is spelled before its aisle is chosen: all of it
        where labels have no `aisles`. `shelves` has what follows.

        Raises:
            ModelError: no EOS token, or answers whose tokens depend on the product.
            ConfigError: labels that can't be told apart.
        """
        if tokenizer.eos_token_id is None:
            raise ModelError("the base's tokenizer has no EOS token; choose another base")
        self.tokenizer, self.template, self.labels = tokenizer, template, tuple(labels)
        self._bos = self._beginning()
        prompts = [template.render(name, labels) for name in _PROBES]
        probes = self._tokenise(prompts)
        # A tokenizer joins a space to the word behind it, so the prefix ends before the space.
        (opening,) = self._tokenise(["".join(_beginning_of(prompts)).rstrip()])
        self.prefix: tuple[int, ...] = tuple(_beginning_of([opening, *probes]))
        reverse = [ids[len(self.prefix) :][::-1] for ids in probes]
        self._close = _beginning_of(reverse)[::-1]
        self.aisles, self.leaves = aisles, leaves(self.labels, aisles)
        self.shelves = tuple(self._shelf(label, aisles.get(label, ())) for label in self.labels)
        self.answers = tuple(each.stem for each in self.shelves)
        self.trie: LabelTrie = label_trie(self.labels, self.answers)

    def tails(self, names: Sequence[str]) -> list[list[int]]:
        """Token ids of each name's prompt after the shared prefix."""
        return [self._tail(ids) for ids in self._prompts(names)]

    def spelled(self, names: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
        """Token ids after the shared prefix of each name's prompt with any answer, EOS included."""
        texts = [
            self.template.render(name, self.labels) + self.template.answer(answer)
            for name, answer in zip(names, answers, strict=True)
        ]
        eos = self.tokenizer.eos_token_id
        return [[*ids[len(self.prefix) :], eos] for ids in self._tokenise(texts)]

    def cut(self, names: Sequence[str]) -> int:
        """How many names are longer, in tokens, than their slot."""
        return sum(self._room(ids) < len(ids) for ids in self._prompts(names))

    def _prompts(self, names: Sequence[str]) -> Iterator[list[int]]:
        """Ids of whole prompts: never of all at once, as each repeats the instruction."""
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            yield from self._tokenise([self.template.render(name, self.labels) for name in some])

    def _tail(self, ids: list[int]) -> list[int]:
        start = len(self.prefix)
        assert tuple(ids[:start]) == self.prefix, "a name changed the instruction's tokens"
        room = self._room(ids)
        if room < len(ids):
            return ids[start : room - len(self._close)] + self._close
        return ids[start:]

    def _room(self, ids: list[int]) -> int:
        """Tokens that a prompt may have."""
        return len(self.prefix) + self.template.max_name_tokens + len(self._close)

    def _shelf(self, label: str, aisles: Sequence[str]) -> Shelf:
        answers = spelled([label], {label: aisles})
        return shelf(aisles, [self._answer(answer) for answer in answers])

    def _answer(self, label: str) -> tuple[int, ...]:
        found = set()
        for name in ("a", "7", "Ж"):
            prompt = self.template.render(name, self.labels)
            ids, whole = self._tokenise([prompt, prompt + self.template.answer(label)])
            if whole[: len(ids)] != ids:
                raise ModelError(
                    f"the base's tokenizer joins the prompt's end with label {label!r}; "
                    "choose another prompt.template"
                )
            found.add((*whole[len(ids) :], self.tokenizer.eos_token_id))
        if len(found) > 1:
            raise ModelError(f"the tokens of label {label!r} depend on the product's name")
        return found.pop()

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole prompts; a special token spelled out in a text stays text."""
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [self._bos + ids for ids in encoded["input_ids"]]

    def _beginning(self) -> list[int]:
        """BOS, where the tokenizer itself would begin with it."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] else []


def _beginning_of(sequences: Sequence[Sequence[Any]]) -> list[Any]:
    """The longest prefix that all sequences share."""
    same = takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return [column[0] for column in same]
