"""The pages that people read, and their parts as GitHub sees them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", text)


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a language, in order."""
    return [body for told, body in _FENCED.findall(text) if told == language]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its rank."""
    rank = heading.split()[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(rank)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"no heading {heading!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a text, heads left out."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    heads = {i - 1 for i, row in enumerate(rows) if set(row[0]) <= set("-:")}
    return [row for i, row in enumerate(rows) if i not in heads and i - 1 not in heads]


def links(text: str) -> list[str]:
    """Where a page's links point to; code is no link."""
    return _LINK.findall(_CODE.sub("`", prose(text)))


def anchors(text: str) -> Iterator[str]:
    """The anchors of a page's headings: lower case, no punctuation, dashes; a second gets `-1`."""
    seen: Counter[str] = Counter()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1
