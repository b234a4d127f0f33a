"""The README is short, and its repository layout matches the repository."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.docs.documents import ROOT, blocks, section

README = (ROOT / "README.md").read_text()
_LINE = re.compile(r"^([\w.]+)/ +\S.*$")


def directories(text: str) -> list[str]:
    """Return the directories of the repository layout, each of which has a description."""
    (tree,) = blocks(section(text, "## Repository layout"))
    matches = [(line, _LINE.match(line)) for line in tree.splitlines()]
    assert all(match for _, match in matches), [line for line, match in matches if not match]
    return [match[1] for _, match in matches if match]


def tracked_directories() -> set[str]:
    """Return the top-level directories that contain tracked files."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {path.partition("/")[0] for path in paths.splitlines() if "/" in path}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_layout_matches_the_repository() -> None:
    assert sorted(directories(README)) == sorted(tracked_directories())


def test_directory_without_description_is_found() -> None:
    text = "## Repository layout\n\n```\ngrocer/   the domain\nserving/\n```\n"
    with pytest.raises(AssertionError, match="serving/"):
        directories(text)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 160
