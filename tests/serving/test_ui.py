"""The page: off unless configured, self-contained, and working in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from grocer.bundle import Bundle
from tests.artifacts import LABELS
from tests.serving.conftest import Running, Start
from tests.serving.stub import StubScorer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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
    assert "## Limits" in answer.text


def shown(url: str, profile: Path) -> str:
    """The page as Chromium has it once its script is done."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    words += ["--disable-dev-shm-usage", "--no-proxy-server", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [CHROMIUM, *words, "--dump-dom", url], capture_output=True, text=True, timeout=120
    )
    return unescape(done.stdout)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_person_sees_department_and_probabilities(with_page: Running, tmp_path: Path) -> None:
    row = StubScorer(LABELS).probabilities(["Organic Bananas"])[0]
    page = shown(f"{with_page.url}/ui?name=Organic+Bananas", tmp_path)
    assert f">{LABELS[row.argmax()]}</output>" in page
    found = re.findall(r"<li><span>(.*?)</span><meter.*?</meter><span>(.*?)</span>", page)
    assert found == [
        (LABELS[i], f"{100 * row[i]:.1f} %") for i in sorted(range(3), key=lambda i: -row[i])
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_person_sees_the_aisle_too(levelled: Running, tmp_path: Path) -> None:
    (found,) = levelled.predict("product 1").json()["predictions"]
    assert found["aisle"]
    page = shown(f"{levelled.url}/ui?name=product+1", tmp_path)
    share = f"{100 * found['aisle_probability']:.1f} %"
    assert f">{found['department']} › {found['aisle']} ({share})</output>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_hostile_name_and_a_refusal_are_shown_as_text(with_page: Running, tmp_path: Path) -> None:
    page = shown(f"{with_page.url}/ui?name=%3Cimg+onerror%3Dalert(1)%3E%00", tmp_path)
    assert "control characters" in page
    assert "<img" not in page
