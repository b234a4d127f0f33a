"""Chromium, where there is one: what a page says once its script is done, and how it lies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
PHONE, DESK = 400, 1280
_SCRIPT = Path(__file__).with_suffix(".js")


def dom(address: str, folder: Path) -> str:
    """The page at an address as Chromium has it once its script is done, as HTML."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    words += ["--disable-dev-shm-usage", "--no-proxy-server", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [CHROMIUM, *words, "--dump-dom", address], capture_output=True, text=True, timeout=120
    )
    return done.stdout


def shown(address: str, folder: Path) -> str:
    """The same with its entities resolved, to be looked at as text."""
    return unescape(dom(address, folder))


def laid_out(pages: Mapping[str, str], folder: Path) -> list[dict[str, Any]]:
    """How each page (HTML by name) looks on a phone and on a desk, by day and by night.

    A row tells page, width (CSS pixels), scheme, `dark` (whether the page saw the dark scheme),
    `wider` (pixels by which the page is wider than its window), `faint` (texts whose contrast is
    below 4.5, WCAG's AA), `unreachable` (labels of parts that scroll, but not by keyboard), and
    `smallest` (the least height of a letter in a plot, in pixels).
    """
    asked = {"pages": dict(pages), "widths": [PHONE, DESK], "schemes": ["light", "dark"]}
    text = json.dumps(asked).replace("<", "\\u003c")
    frame = folder / "frame.html"
    frame.write_text(
        f"<!doctype html><meta charset=utf-8><pre></pre><script>const asked = {text};</script>"
        f"<script>{_SCRIPT.read_text()}</script>",
        encoding="utf-8",
    )
    (found,) = re.findall(r"<pre>(.*)</pre>", dom(frame.as_uri(), folder), re.DOTALL)
    return json.loads(unescape(found))
