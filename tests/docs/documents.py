"""Parse README.md and docs/ as GitHub does."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_PLACEHOLDER = "\0"
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCED.sub("", text)


def blocks(text: str, language: str = "") -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return [body for name, body in FENCED.findall(text) if name == language]


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same or a higher level."""
    level = heading.split()[0]
    match = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert match, f"no heading {heading!r}"
    return match[1]


def table(text: str) -> list[list[str]]:
    """Return the cells of all table rows in a text, without header rows."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    headers = {i - 1 for i, row in enumerate(rows) if set(row[0]) <= set("-:")}
    return [row for i, row in enumerate(rows) if i not in headers and i - 1 not in headers]


def code(text: str) -> list[str]:
    """Return the inline code of a text."""
    return [span.strip("`") for span in _CODE.findall(prose(text))]


def links(text: str) -> list[str]:
    """Return the targets of a page's links, except those in code."""
    return _LINK.findall(_CODE.sub("`", prose(text)))


def anchors(text: str) -> Iterator[str]:
    """Yield the anchors of a page's headings; a repeated heading gets `-1`, `-2`, …"""
    seen: Counter[str] = Counter()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1


def error_statuses() -> set[int]:
    """Return the statuses of the predictor's errors, from its source."""
    source = "".join(path.read_text() for path in (ROOT / "serving" / "predictor").rglob("*.py"))
    return {int(status) for status in re.findall(r"RequestError\(\s*(\d{3})\b", source)}


def in_source(message: str) -> bool:
    """Whether a string of the source contains `message`; `…` matches any text."""
    pattern = re.compile(".*?".join(re.escape(part.strip()) for part in message.split("…")))
    return any(pattern.search(text) for text in _strings())


@cache
def _strings() -> frozenset[str]:
    """Return all strings of the source except docstrings, with placeholders for values."""
    strings: set[str] = set()
    for package in ("grocer", "serving", "components", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    parts = (
                        str(part.value) if isinstance(part, ast.Constant) else _PLACEHOLDER
                        for part in node.values
                    )
                    strings.add(" ".join("".join(parts).split()))
                elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                    strings.add(" ".join(str(node.value).split()))
    return frozenset(strings)
