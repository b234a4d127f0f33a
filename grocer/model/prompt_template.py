"""Prompt template: a typed template with an id and a digest, filled with one product name.

A prompt is a fixed instruction, the product name, and a fixed end. The instruction is the prefix
that packing and scoring compute once. A product name cannot change the prompt's structure:
control characters, line breaks and bidirectional marks are replaced or removed, and the markers
of the Llama-2 chat format lose their brackets. Special tokens written in a name stay plain text
because `grocer.model.tokenization` does not let the tokenizer recognise them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from grocer.config.stages import PromptConfig
from grocer.io.atomic import json_digest

MAX_NAME_CHARACTERS = 200  # Instacart's longest name has 159
_CHAT_MARKER = re.compile(r"\[\s*(/?\s*INST)\s*\]|<<\s*(/?\s*SYS)\s*>>", re.IGNORECASE)
_LLAMA2_CHAT = "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]"


class Template(BaseModel):
    """Prompt text around a product name, and the form of the completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    form: Literal["llama2-chat", "short"]
    system: str
    """System message; `{labels}` is replaced by the label set."""
    user: str
    """User message; `{product_name}` is its only variable."""
    max_name_characters: int
    max_name_tokens: int

    @property
    def digest(self) -> str:
        """SHA-256 of all fields."""
        return json_digest(self.model_dump(mode="json"))

    def render(self, product_name: str, labels: Sequence[str]) -> str:
        """Return the prompt for one product, without BOS."""
        user = self.user.format(product_name=self.slot(product_name))
        if self.form == "short":
            return user
        system = self.system.format(labels=", ".join(labels))
        return _LLAMA2_CHAT.format(system=system, user=user)

    def completion(self, label: str) -> str:
        """Return the completion for a label, without EOS."""
        return f" {label} " if self.form == "llama2-chat" else f" {label}"

    def slot(self, product_name: str) -> str:
        """Return the name as the prompt shows it: cleaned and truncated; `?` if it is empty."""
        return clean(product_name)[: self.max_name_characters].rstrip() or "?"

    def is_truncated(self, product_name: str) -> bool:
        """Whether the name has more than `max_name_characters` characters."""
        return len(clean(product_name)) > self.max_name_characters


def clean(product_name: str) -> str:
    """Return the name on one line, without control characters, bidi marks or chat markers."""
    text = unicodedata.normalize("NFC", product_name)
    text = "".join(" " if unicodedata.category(c) in _BLANKS else c for c in text)
    text = "".join(c for c in text if unicodedata.category(c) not in _DROPPED)
    # Removing one marker can join the halves of another, so repeat until nothing changes.
    while (plain := _CHAT_MARKER.sub(lambda match: match[1] or match[2], text)) != text:
        text = plain
    return " ".join(text.split())


# Zs: spaces of any width; Zl, Zp: separators; Cc: control characters such as line breaks.
_BLANKS = frozenset({"Zs", "Zl", "Zp", "Cc"})
# Cf: bidirectional marks and joiners; Cs: lone surrogates, which tokenizers cannot encode.
_DROPPED = frozenset({"Cf", "Cs"})


def template(config: PromptConfig, noun: str = "department", *, aisles: bool = False) -> Template:
    """Return the configured template.

    Args:
        noun: what a label is called in the instruction.
        aisles: whether completions name an aisle too; the instruction lists the labels only.
    """
    limits = {
        "max_name_characters": MAX_NAME_CHARACTERS,
        "max_name_tokens": config.max_name_tokens,
    }
    if config.template == "short":
        return Template(id="short-v1", form="short", system="", user="{product_name} =>", **limits)
    answer = f"the one {noun} that the product belongs to"
    answer += ", a colon, its aisle there," if aisles else ""
    return Template(
        id="llama2-chat-aisles-v1" if aisles else "llama2-chat-v1",
        form="llama2-chat",
        system=(
            f"You sort the products of an online grocery. Answer with {answer} and nothing else. "
            f"The {noun}s are: {{labels}}."
        ),
        user="Product: {product_name}",
        **limits,
    )
