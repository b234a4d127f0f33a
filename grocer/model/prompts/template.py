"""Prompt template: a typed template with an id and a digest, filled with one product name.

A prompt is a fixed instruction, the product name, and a fixed end. The instruction is the prefix
that packing and scoring compute once. A product name cannot change the prompt's structure:
control characters, line breaks and bidirectional marks are replaced or removed, and the markers
of chat formats (Llama-2, Llama-3, ChatML) lose their brackets. Special tokens written in a name
stay plain text because `grocer.model.prompts.tokenization` does not let the tokenizer recognise
them.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from grocer.config.stages import PromptConfig
from grocer.io.atomic import json_digest

MAX_NAME_CHARACTERS = 200  # Instacart's longest name has 159
# Names that start and end in as many ways as a tokenizer can distinguish: letters of both cases,
# a digit, punctuation, accents, other scripts, and bytes that no vocabulary holds as one token.
PROBE_NAMES = ("a", "Z", "7", "-", "'s", "(x)", "é", "Ж", "米", "🫐", "the best", "]", "e]")
# Far more than `MAX_NAME_CHARACTERS`; bounds the time that one name takes.
_MAX_RAW_CHARACTERS = 1000
# [INST], <<SYS>>, <|im_start|>; all repetitions are bounded, so a search takes linear time.
_CHAT_MARKER = re.compile(
    r"\[ ?(/? ?INST) ?\]|<< ?(/? ?SYS) ?>>|<\| ?(\w{1,40}) ?\|>", re.IGNORECASE
)
_BRACKETS = re.compile(r"[\[\]<>]")
_MAX_NESTED_MARKERS = 5
_MAX_MARKS = 30
# Zs: spaces of any width; Zl, Zp: separators; Cc: control characters such as line breaks.
_BLANKS = frozenset({"Zs", "Zl", "Zp", "Cc"})
# Cf: bidirectional marks and joiners; Cs: lone surrogates, which tokenizers cannot encode.
_DROPPED = frozenset({"Cf", "Cs"})
_INVISIBLE = _BLANKS | _DROPPED
_LLAMA2_CHAT = "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]"


class Template(BaseModel):
    """Prompt text around a product name, and the form of the completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    form: Literal["chat", "llama2-chat", "list", "short"]
    """`chat`: the base's own chat template, which `grocer.model.prompts.chat` renders."""
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
        """Return the prompt for one product, without BOS.

        With the form `chat` it is the text of both messages, without the base's chat format.
        """
        system, user = self.messages(self.slot(product_name), labels)
        if self.form == "short":
            return user
        if self.form in ("chat", "list"):
            return f"{system}\n{user}"
        return _LLAMA2_CHAT.format(system=system, user=user)

    def messages(self, slot: str, labels: Sequence[str]) -> tuple[str, str]:
        """Return the system and the user message with the text `slot` as the name."""
        system = self.system.format(labels=", ".join(labels))
        return system, self.user.format(product_name=slot)

    def completion(self, label: str) -> str:
        """Return the completion for a label, without EOS."""
        return {"chat": label, "llama2-chat": f" {label} "}.get(self.form, f" {label}")

    def slot(self, product_name: str) -> str:
        """Return the name as the prompt shows it: cleaned and truncated; `?` if it is empty."""
        return clean(product_name)[: self.max_name_characters].rstrip() or "?"

    def is_truncated(self, product_name: str) -> bool:
        """Whether the name has more than `max_name_characters` characters."""
        return len(clean(product_name)) > self.max_name_characters


def clean(product_name: str) -> str:
    """Return the name on one line, without control characters, bidi marks or chat markers.

    Only the first 1,000 characters count, and the time is linear in their number.
    """
    text = _first_characters(product_name)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _BLANKS else c for c in text)
        text = "".join(c for c in text if unicodedata.category(c) not in _DROPPED)
    text = unicodedata.normalize("NFC", limit_marks(text))
    return " ".join(_without_markers(" ".join(text.split())).split())


def is_blank(product_name: str | None) -> bool:
    """Whether the name is null, or `clean` returns an empty one; faster than cleaning it."""
    characters = _first_characters(product_name or "")
    return all(unicodedata.category(c) in _INVISIBLE for c in characters)


def limit_marks(text: str) -> str:
    """Return `text` with at most 30 combining marks in a row, as UAX #15 recommends.

    Unicode normalisation takes quadratic time in the length of such a run.
    """
    if text.isascii():
        return text
    kept, run = [], 0
    for c in text:
        run = run + 1 if unicodedata.combining(c) else 0
        if run <= _MAX_MARKS:
            kept.append(c)
    return "".join(kept)


def _first_characters(product_name: str) -> str:
    return " ".join(product_name.split())[:_MAX_RAW_CHARACTERS]


def _without_markers(text: str) -> str:
    """Return `text`, in which all spaces are single, with chat markers but without brackets."""
    # Removing one marker can join the halves of another.
    for _ in range(_MAX_NESTED_MARKERS):
        text, count = _CHAT_MARKER.subn(lambda m: m[1] or m[2] or m[3], text)
        if not count:
            return text
    return _BRACKETS.sub("", text)


def template(config: PromptConfig, noun: str = "department", *, aisles: bool = False) -> Template:
    """Return the configured template.

    Args:
        noun: what a label is called in the instruction.
        aisles: whether completions name an aisle too; the instruction lists the labels only.
    """
    version = "chat-aisles-v1" if aisles else "chat-v1"
    short = f"{noun}, a colon and the aisle" if aisles else noun
    answer = f"the one {noun} that the product belongs to"
    answer += ", a colon, its aisle there," if aisles else ""
    identifier, system, user = {
        "short": ("short-v1", "", "{product_name} =>"),
        "list": (
            "list-v1",
            f"The {noun}s of an online grocery are: {{labels}}.",
            "{product_name} =>",
        ),
        "chat": (
            version,
            f"Answer with the {short} of a grocery product. The {noun}s are: {{labels}}.",
            "Product: {product_name}",
        ),
        "llama2-chat": (
            f"llama2-{version}",
            f"You sort the products of an online grocery. Answer with {answer} and nothing else. "
            f"The {noun}s are: {{labels}}.",
            "Product: {product_name}",
        ),
    }[config.template]
    return Template(
        id=identifier,
        form=config.template,
        system=system,
        user=user,
        max_name_characters=MAX_NAME_CHARACTERS,
        max_name_tokens=config.max_name_tokens,
    )
