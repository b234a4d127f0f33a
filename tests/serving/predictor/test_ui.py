"""The page: off unless configured, self-contained, and working in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from grocer.release.bundle import Bundle
from serving.predictor import ui
from tests.fixtures.artifacts import LABELS
from tests.fixtures.browser import dom, measure_layout, needs_chromium, shown
from tests.fixtures.predictor import StubScorer
from tests.serving.conftest import Running, Start


@pytest.fixture(scope="module")
def with_page(start_any: Start, stub_bundle: Bundle) -> Iterator[Running]:
    running = start_any(stub_bundle, "ui=true").until_ready()
    yield running
    running.code(15)


def test_the_page_is_self_contained_and_allows_no_other_script(with_page: Running) -> None:
    answer = with_page.get("/ui")
    assert answer.status_code == 200
    assert not re.search(r"(src|href)=|url\(|@import", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "Which department?" in answer.text
    assert "<h2>Limitations</h2>" in answer.text
    assert "<table>" in answer.text


def test_the_page_says_what_it_is(with_page: Running) -> None:
    page = with_page.get("/ui").text
    assert '<html lang="en">' in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert "<title>Which department? · Grocer</title>" in page
    assert '<label for="name">' in page


@needs_chromium
def test_a_person_sees_department_and_probabilities(with_page: Running, tmp_path: Path) -> None:
    row = StubScorer(LABELS).predict(["Organic Bananas"]).probabilities[0]
    page = shown(f"{with_page.url}/ui?name=Organic+Bananas", tmp_path)
    assert f">{LABELS[row.argmax()]}</output>" in page
    found = re.findall(r"<li><span>(.*?)</span><meter.*?</meter><span>(.*?)</span>", page)
    assert found == [
        (LABELS[i], f"{100 * row[i]:.1f}\u00a0%") for i in sorted(range(3), key=lambda i: -row[i])
    ]


@needs_chromium
def test_a_person_sees_the_aisle_too(levelled: Running, tmp_path: Path) -> None:
    (found,) = levelled.predict("product 1").json()["predictions"]
    assert found["aisle"]
    page = shown(f"{levelled.url}/ui?name=product+1", tmp_path)
    share = f"{100 * found['aisle_probability']:.1f}\u00a0%"
    assert f">{found['department']} › {found['aisle']} ({share})</output>" in page


@needs_chromium
def test_a_hostile_name_and_a_refusal_are_shown_as_text(with_page: Running, tmp_path: Path) -> None:
    page = shown(f"{with_page.url}/ui?name=%3Cimg+onerror%3Dalert(1)%3E%00", tmp_path)
    assert "control characters" in page
    assert "<img" not in page


@needs_chromium
def test_the_page_with_an_answer_fits_and_can_be_read(levelled: Running, tmp_path: Path) -> None:
    answered = dom(f"{levelled.url}/ui?name=product+1", tmp_path)
    answered, scripts = re.subn(r"<script>.*</script>", "", answered, flags=re.DOTALL)
    assert scripts == 1
    assert "<li>" in answered
    answered = answered.replace("<details>", "<details open>")
    assert "<details open>" in answered
    for each in measure_layout({"ui": answered}, tmp_path):
        assert each["dark"] == (each["scheme"] == "dark")
        assert (each["overflow"], each["low_contrast"], each["not_focusable"]) == (0, [], [])


def test_what_a_label_holds_stays_text() -> None:
    html = ui._html("| a |\n|---|\n| <script>x</script> [y](javascript:z) |\n")
    assert "&lt;script&gt;x&lt;/script&gt; [y](javascript:z)" in html
    assert "<td>" in html
