"""Protects docs/troubleshooting.md: each line that it quotes is still one that Grocer says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.docs.documents import ROOT, table

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PACKAGES = ("grocer", "serving", "components", "pipelines")
HOLE = "\0"
"""Stands in a template for what is put in at run time."""


def quoted(page: str) -> list[str]:
    """The messages in the first cells of a page's tables."""
    return [message for row in table(page) for message in re.findall(r"`([^`]+)`", row[0])]


@cache
def templates() -> frozenset[str]:
    """Every text in the code but docstrings, with holes where values go."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found.update(_texts(ast.parse(path.read_text())))
    return frozenset(found)


def _texts(tree: ast.AST) -> Iterator[str]:
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
            yield " ".join("".join(map(str, parts)).split())
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield " ".join(str(node.value).split())


def is_said(message: str) -> bool:
    """Whether one text of the code holds the message; `…` is a hole, or what a page leaves out."""
    parts = [re.escape(part.strip()) for part in message.split("…")]
    pattern = re.compile(".*?".join(parts))
    return any(pattern.search(template) for template in templates())


@pytest.mark.parametrize("message", quoted(PAGE))
def test_a_quoted_line_is_still_said(message: str) -> None:
    assert len(message.replace("…", "").split()) > 1, "too little of a message to look for"
    assert is_said(message), "the code says it no longer, or in other words: change the page"


def test_the_page_quotes_what_it_tells_of() -> None:
    assert len(quoted(PAGE)) > 60


@pytest.mark.parametrize(
    "message",
    [
        "--recipe …: no such receipt; …",
        "--data …: there is no such file or folder named so",
        "… was touched: … was renamed; fetch it again",
        "Run the block as step",  # a docstring's words
    ],
)
def test_what_is_never_said_is_seen(message: str) -> None:
    assert not is_said(message)
