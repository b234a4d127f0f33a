"""The page at /ui: self-contained, accessible, and working in a browser."""

import re
from pathlib import Path

import pytest

from grocer.release.bundle import LoadedBundle
from serving.predictor import ui
from tests.fixtures.artifacts import LABELS
from tests.fixtures.browser import dom, measure_layout, needs_chromium, rendered_text
from tests.fixtures.predictor import StubScorer
from tests.fixtures.predictor_process import Running, Start


@pytest.fixture(scope="module")
def server_with_ui(start_server: Start, stub_bundle: LoadedBundle) -> Running:
    return start_server(stub_bundle, "ui=true").wait_until_ready()


def test_page_is_complete_loads_nothing_and_allows_no_other_script(server_with_ui: Running) -> None:
    response = server_with_ui.get("/ui")
    assert response.status_code == 200
    assert not re.search(r"(src|href)=|url\(|@import", response.text)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    for part in (
        '<html lang="en">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>Predict the department of a product · Grocer</title>",
        '<label for="name">',
        "<noscript>This page needs JavaScript.</noscript>",
        "<h2>Limitations</h2>",
        "<table>",
    ):
        assert part in response.text


@needs_chromium
def test_page_shows_department_and_probabilities(server_with_ui: Running, tmp_path: Path) -> None:
    row = StubScorer(LABELS).predict(["Organic Bananas"]).probabilities[0]
    page = rendered_text(f"{server_with_ui.url}/ui?name=Organic+Bananas", tmp_path)
    assert f">{LABELS[row.argmax()]}</output>" in page
    rows = re.findall(r"<li><span>(.*?)</span><meter.*?</meter><span>(.*?)</span>", page)
    assert rows == [
        (LABELS[i], f"{100 * row[i]:.1f}\u00a0%") for i in sorted(range(3), key=lambda i: -row[i])
    ]


@needs_chromium
def test_page_shows_the_aisle(server_with_aisles: Running, tmp_path: Path) -> None:
    (prediction,) = server_with_aisles.predict("product 1").json()["predictions"]
    assert prediction["aisle"]
    page = rendered_text(f"{server_with_aisles.url}/ui?name=product+1", tmp_path)
    share = f"{100 * prediction['aisle_probability']:.1f}\u00a0%"
    assert f">{prediction['department']} › {prediction['aisle']} ({share})</output>" in page


@needs_chromium
def test_input_and_errors_are_shown_as_text(server_with_ui: Running, tmp_path: Path) -> None:
    page = rendered_text(f"{server_with_ui.url}/ui?name=%3Cimg+onerror%3Dalert(1)%3E%00", tmp_path)
    assert "control characters" in page
    assert "<img" not in page


@needs_chromium
def test_page_with_a_prediction_fits_and_is_readable(
    server_with_aisles: Running, tmp_path: Path
) -> None:
    html = dom(f"{server_with_aisles.url}/ui?name=product+1", tmp_path)
    html, scripts = re.subn(r"<script>.*</script>", "", html, flags=re.DOTALL)
    assert scripts == 1
    assert "<li>" in html
    html = html.replace("<li><span>", f"<li><span>{'Nahrungsergänzungsmittel' * 3}")
    html = html.replace("<details>", "<details open>")
    assert "<details open>" in html
    for each in measure_layout({"ui": html}, tmp_path):
        assert each["dark"] == (each["scheme"] == "dark")
        assert (each["overflow"], each["low_contrast"], each["not_focusable"]) == (0, [], [])


def test_html_in_the_model_card_is_escaped() -> None:
    html = ui.render_card("| a |\n|---|\n| <script>x</script> [y](javascript:z) |\n")
    assert "&lt;script&gt;x&lt;/script&gt; [y](javascript:z)" in html
    assert "<td>" in html
