"""Prompts: a typed template with an id and a digest; a product's name is data inside it.

A prompt is a fixed instruction, the same for every product, then the name, then a fixed close.
The instruction is what packing and scoring compute once. A name can't leave its slot: control
characters, line breaks and direction marks become spaces or vanish, and the markers of the
Llama-2 chat form lose their brackets. Special tokens spelled out in a name stay text because
`grocer.encoding` never lets the tokenizer recognise them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict

from grocer.config.stages import PromptConfig
from grocer.errors import ConfigError
from grocer.io.atomic import json_digest

MAX_NAME_CHARACTERS = 200  # Instacart's longest name has 159
_CHAT_MARKER = re.compile(r"\[\s*(/?\s*INST)\s*\]|<<\s*(/?\s*SYS)\s*>>", re.IGNORECASE)
_LLAMA2_CHAT = "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]"


class Template(BaseModel):
    """How a product is put to the model, and how the answer is spelled after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    form: Literal["llama2-chat", "short"]
    system: str
    """Instruction before every product; `{labels}` is filled with the label set."""
    user: str
    """The product's turn; `{product_name}` is its only variable."""
    max_name_characters: int
    max_name_tokens: int

    @property
    def digest(self) -> str:
        """SHA-256 of everything that shapes a prompt."""
        return json_digest(self.model_dump(mode="json"))

    def render(self, product_name: str, labels: Sequence[str]) -> str:
        """The prompt for one product, without the tokenizer's BOS."""
        user = fill(self.user, {"product_name": self.slot(product_name)})
        if self.form == "short":
            return user
        system = fill(self.system, {"labels": ", ".join(labels)})
        return _LLAMA2_CHAT.format(system=system, user=user)

    def answer(self, label: str) -> str:
        """The completion as the chat form spells it, before the tokenizer's EOS."""
        return f" {label} " if self.form == "llama2-chat" else f" {label}"

    def slot(self, product_name: str) -> str:
        """A name as it stands in a prompt: one line, no markers, at most the stated length."""
        return clean(product_name)[: self.max_name_characters].rstrip() or "?"

    def is_cut(self, product_name: str) -> bool:
        """Whether the name is longer than its slot."""
        return len(clean(product_name)) > self.max_name_characters


def clean(product_name: str) -> str:
    """A name on one line, without control characters, direction marks or chat markers."""
    text = unicodedata.normalize("NFC", product_name)
    text = "".join(" " if unicodedata.category(c) in _BLANKS else c for c in text)
    text = "".join(c for c in text if unicodedata.category(c) not in _DROPPED)
    # Removing one marker can join the halves of another: go on until none is left.
    while (plain := _CHAT_MARKER.sub(lambda match: match[1] or match[2], text)) != text:
        text = plain
    return " ".join(text.split())


# Zs: spaces of every width; Zl, Zp: separators; Cc: controls, line breaks among them.
_BLANKS = frozenset({"Zs", "Zl", "Zp", "Cc"})
# Cf: direction marks and joiners; Cs: lone surrogates, which no tokenizer can encode.
_DROPPED = frozenset({"Cf", "Cs"})


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put `values` into `text`'s variables.

    Raises:
        ConfigError: a variable without a value, or a value without a variable; both are named.
    """
    wanted = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    missing, extra = sorted(wanted - set(values)), sorted(set(values) - wanted)
    if missing or extra:
        told = [f"no value for {', '.join(missing)}"] if missing else []
        told += [f"no variable for {', '.join(extra)}"] if extra else []
        raise ConfigError(f"template {text!r}: {' and '.join(told)}")
    return text.format(**values)


def template(config: PromptConfig, noun: str = "department", *, aisles: bool = False) -> Template:
    """The template that the configuration names; `noun` is what a label is called.

    With `aisles` the answer goes on to the aisle; the instruction still lists the labels alone.
    """
    if config.template == "short":
        return Template(
            id="short-v1",
            form="short",
            system="",
            user="{product_name} =>",
            max_name_characters=MAX_NAME_CHARACTERS,
            max_name_tokens=config.max_name_tokens,
        )
    wanted = f"the one {noun} that the product belongs to"
    wanted += ", a colon, its aisle there," if aisles else ""
    return Template(
        id="llama2-chat-aisles-v1" if aisles else "llama2-chat-v1",
        form="llama2-chat",
        system=(
            f"You sort the products of an online grocery. Answer with {wanted} and nothing else. "
            f"The {noun}s are: {{labels}}."
        ),
        user="Product: {product_name}",
        max_name_characters=MAX_NAME_CHARACTERS,
        max_name_tokens=config.max_name_tokens,
    )
