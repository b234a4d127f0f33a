"""Protects the README's tree: it names the directories that there are, and no others."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.docs.documents import ROOT, blocks, section

_LINE = re.compile(r"^([\w.]+)/ +\S.*$")


def told(text: str) -> list[str]:
    """The directories of the README's tree, each of which has a word on it."""
    (tree,) = blocks(section(text, "## What is what"))
    matches = [(line, _LINE.match(line)) for line in tree.splitlines()]
    assert all(match for _, match in matches), [line for line, match in matches if not match]
    return [match[1] for _, match in matches if match]


def tracked() -> set[str]:
    """The top-level directories with files that git knows."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {path.partition("/")[0] for path in listed.splitlines() if "/" in path}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout, so nothing is tracked")
def test_the_tree_is_the_real_one() -> None:
    assert sorted(told((ROOT / "README.md").read_text())) == sorted(tracked())


def test_a_line_of_the_tree_without_a_word_is_seen() -> None:
    text = "## What is what\n\n```\ngrocer/   the domain\nserving/\n```\n"
    with pytest.raises(AssertionError, match="serving/"):
        told(text)
