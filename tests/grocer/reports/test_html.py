"""Pages are accessible (narrow screens, colour schemes, colour vision deficiency, screen readers)
and load no external resources."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grocer.artifacts.evaluation import Evaluation
from grocer.config.stages import GatePolicy
from grocer.reports.evaluation import evaluation_page
from grocer.reports.html import BLUE, ORANGE
from tests.fixtures.browser import PHONE, dom, measure_layout, needs_chromium
from tests.fixtures.page_layout import PAGES, make_pages, with_labels
from tests.fixtures.stage_artifacts import ADAPTER

# Titles and axis labels, with units, of the plots of each page.
PLOTS = {
    "report": {
        "Test accuracy and its confidence interval": {"test accuracy, %"},
        "Reliability curve": {"confidence, %", "accuracy, %"},
        "Accuracy by coverage": {"coverage, most confident first, %", "accuracy, %"},
    },
    "split": {"Test share": {"products in train, validation and test", "test share, %"}},
    "loss": {"Loss": {"optimizer step", "loss, nats per completion token"}},
    "validation": {},
    "drift": {"Predicted departments": {"share of products, %"}},
}


@pytest.fixture(scope="module")
def pages(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The HTML of each of `PAGES`."""
    return make_pages(evaluation, tmp_path_factory.mktemp("pages"))


class Outline(HTMLParser):
    """The tags and styles of a page, and the texts of each plot."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self.plots: dict[str, set[str]] = {}
        self.title, self.last = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.last = tag
        self.styles.append(attributes.get("style") or "")
        if tag == "svg":
            self.plots[attributes["aria-label"] or ""] = set()

    def handle_data(self, data: str) -> None:
        if self.last == "style":
            self.styles.append(data)
        if self.last == "title":
            self.title += data
        if self.last == "text":
            list(self.plots.values())[-1].add(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=PAGES)
def outline(pages: dict[str, str], request: pytest.FixtureRequest) -> tuple[str, Outline]:
    """The name and the outline of a page."""
    return request.param, Outline(pages[request.param])


def test_page_has_metadata_and_a_title(outline: tuple[str, Outline]) -> None:
    _, page = outline
    metas = {each.get("name"): each["content"] for each in page.all("meta") if "content" in each}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    assert page.all("html") == [{"lang": "en"}]
    assert re.fullmatch(r"\S.* · Grocer", page.title.strip())
    assert len(page.all("main")) == 1


def test_page_has_no_external_resources(outline: tuple[str, Outline]) -> None:
    _, page = outline
    (policy,) = [each for each in page.all("meta") if "http-equiv" in each]
    assert (policy["content"] or "").startswith("default-src 'none';")
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "img", "iframe", "base"}]
    links = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    addresses = [
        attributes[key] for _, attributes in page.tags for key in links if key in attributes
    ]
    assert [each for each in addresses if not (each or "").startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", " ".join(page.styles))


def test_heading_levels_are_not_skipped(outline: tuple[str, Outline]) -> None:
    _, page = outline
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_headers_and_plots_are_labelled_for_screen_readers(outline: tuple[str, Outline]) -> None:
    _, page = outline
    assert all(each.get("scope") in {"row", "col"} for each in page.all("th"))
    assert all(each.get("role") == "img" and each["aria-label"] for each in page.all("svg"))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_plots_have_titles_and_axis_labels_with_units(outline: tuple[str, Outline]) -> None:
    name, page = outline
    expected = {} if name == "loss, short" else PLOTS[name.split(",")[0]]
    assert page.plots.keys() == expected.keys()
    for title, labels in expected.items():
        assert {title, *labels} <= page.plots[title]


def test_long_label_leaves_room_for_the_bars(pages: dict[str, str]) -> None:
    (label,) = re.findall(r">\s*(\$1[^<]*)</text>", pages["drift"])
    assert label == "$1 SuperkalifragilistischSu…"


def test_training_without_logged_losses_has_no_curve(pages: dict[str, str]) -> None:
    assert "No loss curve" in pages["loss, short"]


@needs_chromium
def test_page_fits_and_is_legible(pages: dict[str, str], tmp_path: Path) -> None:
    layouts = measure_layout(pages, tmp_path)
    assert len(layouts) == 4 * len(PAGES)
    for each in layouts:
        where = f"{each['page']}, {each['width']} pixels, {each['scheme']}"
        assert each["dark"] == (each["scheme"] == "dark"), where
        assert each["overflow"] == 0, where
        assert each["low_contrast"] == [], where
        assert each["not_focusable"] == [], where
        if each["page"] == "drift" and each["width"] != PHONE:
            assert each["scrolling"] == [], where
        if each["smallest_text"] is not None:
            assert each["smallest_text"] >= (9 if each["width"] == PHONE else 10), where


@needs_chromium
def test_long_labels_do_not_stretch_the_confusion_matrix(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    recovered = pd.DataFrame()
    text = evaluation_page(
        with_labels(evaluation, 3, "frozen " * 20), recovered, GatePolicy(), ADAPTER
    )
    text = re.sub(r"<meta http-equiv.*?>", "", text)
    script = "document.title = document.querySelector('table.heat thead').offsetHeight"
    page.write_text(f"{text}<script>{script}</script>", encoding="utf-8")
    (height,) = re.findall(r"<title>(\d+)</title>", dom(page.as_uri(), tmp_path))
    assert int(height) < 250


# Machado, Oliveira and Fernandes 2009, table 1, severity 1: perceived linear RGB.
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "none": np.eye(3).tolist(),
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_plot_colours_are_distinguishable(deficiency: str) -> None:
    perceived = {
        name: np.clip(np.array(DEFICIENCIES[deficiency]) @ _linear(colour), 0, 1)
        for name, colour in {
            "blue": BLUE,
            "orange": ORANGE,
            "white": "#ffffff",
            "black": "#0f1419",
        }.items()
    }
    # CIE 1976: 2.3 is a just noticeable difference; red and green of equal lightness differ by
    # about 10 with these deficiencies.
    assert np.linalg.norm(_lab(perceived["blue"]) - _lab(perceived["orange"])) > 60
    for background in ("white", "black"):
        for colour in ("blue", "orange"):
            # WCAG 1.4.11: contrast of graphics.
            assert _contrast(perceived[colour], perceived[background]) >= 3


def _linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _contrast(one: np.ndarray, other: np.ndarray) -> float:
    weights = np.array([0.2126, 0.7152, 0.0722])
    dark, bright = sorted((float(weights @ one), float(weights @ other)))
    return (bright + 0.05) / (dark + 0.05)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB, with illuminant D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.array(to_xyz) @ linear / np.array([0.9505, 1.0, 1.089])
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])
