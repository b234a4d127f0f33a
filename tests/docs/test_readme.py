"""Tests that the README is short and its layout matches the repository."""

import re
import subprocess

import pytest

from tests.docs.documents import ROOT, blocks, section

README = (ROOT / "README.md").read_text()
_LINE = re.compile(r"^( *)([\w.]+)/ +\S.*$")
_NESTED = ("grocer", "serving", "pipelines")


def directories(text: str) -> list[str]:
    """Return the paths of the repository layout, each of which has a description."""
    (tree,) = blocks(section(text, "## Repository layout"))
    paths, parent = [], ""
    for line in tree.splitlines():
        match = _LINE.match(line)
        assert match, line
        parent = parent if match[1] else match[2]
        paths.append(f"{parent}/{match[2]}" if match[1] else match[2])
    return paths


def tracked_directories() -> set[str]:
    """Return the top-level directories with tracked files, and the packages of some of them."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    nested = {path.rpartition("/")[0] for path in paths if path.count("/") == 2}
    return {path.partition("/")[0] for path in paths if "/" in path} | {
        path for path in nested if path.startswith(tuple(f"{name}/" for name in _NESTED))
    }


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_layout_matches_the_repository() -> None:
    assert sorted(directories(README)) == sorted(tracked_directories())


def test_directory_without_description_is_found() -> None:
    text = "## Repository layout\n\n```\ngrocer/   the domain\nserving/\n```\n"
    with pytest.raises(AssertionError, match="serving/"):
        directories(text)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 160
