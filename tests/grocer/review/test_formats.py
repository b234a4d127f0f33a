"""Each format of the queue can be reviewed and imported again."""

import csv
import json
import re
from codecs import BOM_UTF8
from html import unescape
from pathlib import Path

import pytest

from grocer.ingest.corrections import open_table, read_table
from grocer.review.corrections_file import import_file
from grocer.review.formats import CSV_COLUMNS, FORMATS
from grocer.review.queue import Candidate
from tests.fixtures.browser import dom, measure_layout, needs_chromium

LABELS = ("bakery", "dairy eggs", "produce", "snacks & more")
RANKED = (("bakery", 0.7), ("produce", 0.2), ("dairy eggs", 0.1))
NAMES = ["=Bread()", "</script><b>Bun", 'Two "inch", roll', "Crème é"]
QUEUE = [Candidate(name, "suspected label", "produce", RANKED, 0.8, 1234) for name in NAMES]


def write(tmp_path: Path, kind: str, suffix: str) -> Path:
    out = tmp_path / f"queue{suffix}"
    FORMATS[kind](QUEUE, LABELS, out)
    return out


def imported(path: Path, tmp_path: Path) -> dict[str, tuple[str, str, str]]:
    """Import a reviewed file; return label, reviewer and previous label by name."""
    address = str(tmp_path / "corrections")
    import_file(path, address, LABELS)
    rows = read_table(open_table(address))
    return {row.name: (row.label, row.who, row.previous_label) for row in rows}


def test_csv_is_safe_in_a_spreadsheet_and_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", ".csv")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert path.read_bytes().startswith(BOM_UTF8)  # or Excel does not read it as UTF-8
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["name"] == "'=Bread()"
    assert rows[1]["suggestion"] == "bakery"
    assert rows[1]["alternatives"] == "produce 20%; dairy eggs 10%"
    assert float(rows[0]["value"]) == pytest.approx(0.8 * 1234)
    for row in rows:
        row.update(label=row["suggestion"], who="ann")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    assert imported(path, tmp_path) == dict.fromkeys(NAMES, ("bakery", "ann", "produce"))


def test_label_studio_tasks_have_predictions_of_the_interface(tmp_path: Path) -> None:
    tasks = json.loads(write(tmp_path, "label-studio", ".json").read_text(encoding="utf-8"))
    interface = (tmp_path / "queue.xml").read_text(encoding="utf-8")
    assert [task["data"]["name"] for task in tasks] == NAMES
    assert re.findall('Choice value="(.*?)"', unescape(interface)) == list(LABELS)
    for task in tasks:
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert result["value"] == {"choices": ["bakery"]}
        assert f'Choices name="{result["from_name"]}" toName="{result["to_name"]}"' in interface
        annotation = {"completed_by": 1, "updated_at": "2026-11-30T06:42:00Z"}
        task["annotations"] = [annotation | {"result": prediction["result"]}]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    assert set(imported(path, tmp_path).values()) == {("bakery", "annotator 1", "produce")}


def test_page_loads_nothing_and_allows_no_other_script(tmp_path: Path) -> None:
    page = write(tmp_path, "html", ".html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "script-src 'sha256-" in page
    assert not re.search(r"(src|href)=\"|url\(|@import", page)
    assert "<b>Bun" not in page


PRESS = """
function press(key, options) {
  const target = document.activeElement;
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...options });
  target.dispatchEvent(event);
}
"""
KEYS = """
localStorage.clear();
URL.createObjectURL = (blob) => {
  blob.arrayBuffer().then((bytes) => {
    const pre = document.createElement("pre");
    pre.textContent = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    document.body.append(pre);
  });
  return "data:,";
};
HTMLAnchorElement.prototype.click = () => {};
press("s", { ctrlKey: true }); // without a reviewer nothing is saved
if (document.activeElement.id !== "who") throw new Error("focus");
document.activeElement.value = "ann";
document.activeElement.blur();
press("Enter"); // accept
press("3"); // choose
press("Enter", { repeat: true }); // held down: decides nothing
press("S"); // skip, with Caps Lock
press("c");
document.activeElement.value = "snacks & more";
press("Enter"); // change
press("ArrowUp");
press("ArrowUp");
press("0"); // the second again: keep the current label
const skipped = document.querySelectorAll("tbody tr")[2].querySelector("button");
skipped.click();
skipped.focus();
skipped.click(); // undo
if (document.activeElement === skipped) throw new Error("Space would click it");
press("S", { ctrlKey: true });
"""


def dom_after(script: str, tmp_path: Path) -> str:
    """Return the HTML of the page after a script."""
    page = write(tmp_path, "html", ".html")
    text = re.sub(r"<meta http-equiv.*?>", "", page.read_text(encoding="utf-8"))
    page.write_text(f"{text}<script>{PRESS}{script}</script>", encoding="utf-8")
    return dom(page.as_uri(), tmp_path)


@needs_chromium
def test_page_is_used_by_keyboard_and_saves_what_import_takes(tmp_path: Path) -> None:
    html = dom_after(KEYS, tmp_path)
    saved = re.findall("<pre>(.*?)</pre>", html, re.DOTALL)
    assert len(saved) == 1, html[-3000:]
    assert saved[0].startswith("\ufeff")  # or Excel does not read it as UTF-8
    reviewed = tmp_path / "saved.csv"
    reviewed.write_text(unescape(saved[0]), encoding="utf-8")
    assert imported(reviewed, tmp_path) == {
        NAMES[0]: ("bakery", "ann", "produce"),
        NAMES[1]: ("produce", "ann", "produce"),
        NAMES[3]: ("snacks & more", "ann", "produce"),
    }


RELOAD = """
if (!sessionStorage.length) {
  sessionStorage.setItem("reloaded", "true");
  press("2");
  location.reload();
}
"""
OTHER_TAB = """
const other = { decisions: { 2: { label: "bakery", when: "" } }, who: "ann" };
localStorage.setItem(key, JSON.stringify(other));
dispatchEvent(new StorageEvent("storage", { key }));
press("2");
"""
FULL = "Storage.prototype.setItem = () => { throw new Error(); }; press('Enter');"


@needs_chromium
@pytest.mark.parametrize(
    ("script", "chosen", "status"),
    [
        (RELOAD, ["produce"], "1 of 4 products labelled<"),
        (OTHER_TAB, ["produce", "bakery"], "2 of 4 products labelled<"),
        (FULL, ["bakery"], "1 of 4 products labelled. This browser does not keep decisions"),
    ],
    ids=["reload", "two tabs", "not kept"],
)
def test_decisions_are_kept(tmp_path: Path, script: str, chosen: list[str], status: str) -> None:
    html = dom_after(script, tmp_path)
    assert f'role="status">{status}' in html
    assert re.findall('data-label="([^"]*)" class="chosen"', html) == chosen
    current = html.index('aria-current="true">')  # the second product
    assert html[:current].count('<th scope="row">') == 1


@needs_chromium
def test_script_of_the_page_is_allowed_by_its_policy(tmp_path: Path) -> None:
    html = dom(write(tmp_path, "html", ".html").as_uri(), tmp_path)
    assert html.count('<th scope="row">') == len(QUEUE)
    assert html.count("<bdi>") == len(QUEUE) * (1 + len(RANKED))
    assert 'aria-current="true"' in html


@needs_chromium
def test_page_fits_and_is_readable(tmp_path: Path) -> None:
    html = dom(write(tmp_path, "html", ".html").as_uri(), tmp_path)
    html = re.sub(r"<script.*</script>", "", html, flags=re.DOTALL)
    for layout in measure_layout({"review": html}, tmp_path):
        assert (layout["overflow"], layout["low_contrast"], layout["scrolling"]) == (0, [], [])
