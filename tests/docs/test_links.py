"""Tests that relative links and anchors resolve, and that the index links every page."""

from pathlib import Path

import pytest

from tests.docs.documents import PAGES, ROOT, anchors, links


def broken(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that do not resolve."""
    relative = (link for link in links(text) if not link.startswith(("http://", "https://")))
    return [link for link in relative if not resolves(page, text, *link.partition("#")[::2])]


def resolves(page: Path, text: str, path: str, anchor: str) -> bool:
    """Whether `path`, relative to a page, is a file of the repository and has the anchor."""
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(text if target == page else target.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve_and_no_conflict_marker_is_left(page: Path) -> None:
    text = page.read_text()
    assert broken(page, text) == []
    assert "\n<<<<<<< " not in text


@pytest.mark.parametrize(
    ("link", "valid"),
    [
        ("docs/experiments.md", True),
        ("#quick-start", True),
        ("docs/cluster.md#test-results", True),
        ("docs/cluster.md#no-such-section", False),
        ("docs/nowhere.md", False),
        ("#nowhere", False),
        ("../outside.md", False),
        ("https://example.org/nowhere", True),
    ],
)
def test_broken_link_is_found(link: str, valid: bool) -> None:
    text = f"# Grocer\n\n## Quick start\n\n[text]({link})\n\n```\n[code](no/link.md)\n```\n"
    assert broken(ROOT / "README.md", text) == ([] if valid else [link])


def test_repeated_headings_have_distinct_anchors() -> None:
    text = "## It's `a_b`, twice!\n\n## It's `a_b`, twice!\n"
    assert list(anchors(text)) == ["its-a_b-twice", "its-a_b-twice-1"]


def test_index_links_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in links(index.read_text())}
    assert linked == set(PAGES) - {ROOT / "README.md", index}
