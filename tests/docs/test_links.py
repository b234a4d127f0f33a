"""Protects the reader's way: relative links and anchors lead somewhere, and to every page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import PAGES, ROOT, anchors, links, section


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere; addresses of the web are not followed."""
    inner = (link for link in links(text) if not link.startswith(("http://", "https://")))
    return [link for link in inner if not leads(page, text, *link.partition("#")[::2])]


def leads(page: Path, text: str, path: str, anchor: str) -> bool:
    """Whether a file of ours is at `path`, seen from a page, and has the anchor, if any."""
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(text if target == page else target.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text()) == []


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("docs/experiments.md", True),
        ("#what-is-what", True),
        ("docs/cluster.md#test-results", True),
        ("docs/cluster.md#no-such-section", False),
        ("docs/nowhere.md", False),
        ("#nowhere", False),
        ("../outside.md", False),
        ("https://example.org/nowhere", True),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(link: str, there: bool) -> None:
    text = f"# Grocer\n\n## What is what\n\n[it]({link})\n\n```\n[code](no/link.md)\n```\n"
    assert broken(ROOT / "README.md", text) == ([] if there else [link])


def test_headings_alike_get_anchors_apart() -> None:
    text = "## It's `a_b`, twice!\n\n## It's `a_b`, twice!\n"
    assert list(anchors(text)) == ["its-a_b-twice", "its-a_b-twice-1"]


def test_the_readme_lists_every_page() -> None:
    listed = links(section((ROOT / "README.md").read_text(), "## Documentation"))
    pages = [str(page.relative_to(ROOT)) for page in PAGES if page.name != "README.md"]
    assert sorted(listed) == sorted(pages)
