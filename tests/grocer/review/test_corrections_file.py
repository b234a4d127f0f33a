"""Reviewed files become corrections, all of them or none, and conflicts are reported."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from grocer.errors import TableError
from grocer.ingest.corrections import Corrections, open_table, read_table
from grocer.review.corrections_file import Imported, import_file

NOW = datetime(2026, 11, 30, 6, 42, tzinfo=UTC)
LABELS = ("dairy eggs", "produce", "-deli")


class Table:
    """A corrections table to import into."""

    def __init__(self, folder: Path) -> None:
        self.file, self.address = folder / "reviewed.csv", str(folder / "corrections")

    def add(self, text: str, suffix: str = ".csv", **options: Any) -> Imported:
        path = self.file.with_suffix(suffix)
        path.write_text(text, encoding="utf-8")
        return import_file(path, self.address, **({"labels": LABELS, "now": NOW} | options))

    @property
    def rows(self) -> list[dict[str, str]]:
        return [row.model_dump() for row in read_table(open_table(self.address))]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def test_labelled_rows_are_added_once(table: Table) -> None:
    text = "name,label,suggested,previous_label\nGouda,dairy  eggs,x,produce\nKiwi,,produce,\n"
    result = table.add(text, reviewer="ann")
    assert (result.added, result.skipped, result.known) == (1, 1, 0)
    assert table.rows == [
        {
            "name": "Gouda",
            "label": "dairy eggs",
            "who": "ann",
            "when": "2026-11-30T06:42:00Z",
            "source": "review",
            "previous_label": "produce",
        }
    ]
    again = table.add(text, reviewer="ann", now=datetime(2026, 12, 1, tzinfo=UTC))
    assert (again.added, again.known) == (0, 1)
    assert len(table.rows) == 1


def test_file_cannot_declare_itself_a_resolution(table: Table) -> None:
    table.add("name,label,who\nGouda,dairy eggs,ann\n")
    with pytest.raises(TableError, match="--resolve"):
        table.add("name,label,who,source\nGouda,produce,eve,resolution\n")
    assert [row["who"] for row in table.rows] == ["ann"]
    with pytest.raises(TableError, match="--resolve"):
        table.add("name,label,who,source\nGouda,produce,eve, Resolution \n")
    assert table.add("name,label,who,source\nGouda,produce,eve,resolution\n", resolve=True).added


def test_conflict_is_reported_and_resolved_only_on_request(table: Table) -> None:
    table.add("name,label,who\nGouda,dairy eggs,ann\n")
    result = table.add("name,label,who\nGOUDA,produce,bob\n")
    assert [{row.who for row in rows} for rows in result.conflicts.values()] == [{"ann", "bob"}]
    assert not Corrections.of(read_table(open_table(table.address))).effective
    later = datetime(2026, 12, 1, tzinfo=UTC)
    result = table.add("name,label,who\nGouda,produce,eve\n", resolve=True, now=later)
    assert not result.conflicts
    again = table.add(
        "name,label,who\nGouda,dairy eggs,ann\n", now=datetime(2026, 12, 2, tzinfo=UTC)
    )
    assert (again.added, again.known) == (0, 1)
    effective = Corrections.of(read_table(open_table(table.address))).effective
    assert effective["gouda"].label == "produce"


def test_page_is_not_a_reviewed_file(table: Table) -> None:
    with pytest.raises(TableError, match="CSV file it saves"):
        table.add("<html>", ".html")


def test_opinion_can_be_repeated_after_a_resolution(table: Table) -> None:
    table.add("name,label,who\nGouda,dairy eggs,ann\n")
    table.add("name,label,who\nGouda,produce,eve\n", resolve=True)
    result = table.add("name,label,who,when\nGouda,dairy eggs,ann,2026-12-01\n")
    assert (result.added, len(result.conflicts)) == (1, 1)


def test_conflict_within_a_file_is_reported(table: Table) -> None:
    result = table.add("name,label,who\nGouda,dairy eggs,ann\ngouda,produce,bob\n")
    assert (result.added, len(result.conflicts)) == (2, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,label,who\nGouda,dairy egg,ann\n", "did you mean 'dairy eggs'"),
        ("name,label\nGouda,produce\n", "--reviewer"),
        ("name,label,who\n,produce,ann\n", "row 2: no name"),
        ("name,label,who\nGouda,produce, \n", "--reviewer"),
        ("name,label,who,when\nGouda,produce,ann,today\n", "'today'"),
        ("name,label,who\nGouda,produce,ann\nGOUDA,dairy eggs,ann\n", "keep one"),
        ("product,label\nGouda,produce\n", "no column 'name'"),
        ("name;label;who\nGouda;produce;ann\n", "separated by ';'"),
        ("name,label,who\nGouda,PRODUCE,ann\n", "did you mean 'produce'"),
    ],
)
def test_invalid_file_adds_nothing(table: Table, text: str, expected: str) -> None:
    valid = "\nMilk,dairy eggs,ann," if "when" in text else "\nMilk,dairy eggs,ann"
    text = text.replace("who\n", f"who{valid}\n") if "row 2" not in expected else text
    with pytest.raises(TableError, match=expected):
        table.add(text)
    assert not Path(table.address).exists()


def test_row_that_contradicts_a_known_one_is_reported(table: Table) -> None:
    table.add("name,label,who\nGouda,dairy eggs,ann\n")
    later = datetime(2026, 12, 1, tzinfo=UTC)
    with pytest.raises(TableError, match=r"row 3: ann gave .* keep one"):
        table.add("name,label,who\nGouda,dairy eggs,ann\nGOUDA,produce,ann\n", now=later)
    assert [row["label"] for row in table.rows] == ["dairy eggs"]


def test_spaces_around_a_reviewer_are_ignored(table: Table) -> None:
    result = table.add("name,label,who\nGouda,dairy eggs, ann\nMilk,dairy eggs,ann  \n")
    assert ({row["who"] for row in table.rows}, result.conflicts) == ({"ann"}, {})
    result = table.add("name,label,who\nGouda,dairy eggs,ann \nMilk, ,ann\n")
    assert (result.known, result.skipped) == (1, 1)


def test_formula_guards_are_removed(table: Table) -> None:
    table.add("name,label,who\n'=1+1,'-deli,ann\n")
    assert (table.rows[0]["name"], table.rows[0]["label"]) == ("=1+1", "-deli")


def annotation(label: str, **changes: Any) -> dict[str, Any]:
    result = [{"type": "choices", "value": {"choices": [label]}}]
    when = "2026-11-30T08:00:00.123+02:00"
    return {"completed_by": 3, "updated_at": when, "result": result} | changes


def test_label_studio_export(table: Table) -> None:
    data = {"name": "Gouda", "previous_label": "produce", "source": "suspected label"}
    annotations = [
        annotation("dairy eggs"),
        annotation("produce", was_cancelled=True, completed_by={"email": "bob@x"}),
    ]
    text = json.dumps([{"id": 1, "data": data, "annotations": annotations}])
    result = table.add(text, ".json")
    assert (result.added, result.skipped) == (1, 1)
    row = table.rows[0]
    assert (row["who"], row["when"]) == ("annotator 3", "2026-11-30T06:00:00Z")
    assert (row["source"], row["previous_label"]) == ("suspected label", "produce")


@pytest.mark.parametrize(
    ("form", "who"),
    [
        ("JSON", "annotator 1"),
        ("snapshot", "ann@example.com"),
        ("JSON_MIN", "annotator 1"),
        ("CSV", "annotator 1"),
    ],
)
def test_exports_of_a_label_studio_server(table: Table, form: str, who: str) -> None:
    """Exports of Label Studio 1.23.2: an accepted, a changed, a skipped and an open task."""
    recorded = json.loads(Path(__file__).with_name("label_studio_export.json").read_text())[form]
    text, suffix = (recorded, ".csv") if form == "CSV" else (json.dumps(recorded), ".json")
    result = table.add(text, suffix, labels=("snacks", "frozen"))
    assert (result.added, result.skipped) == (2, 1)
    found = [(row["name"], row["label"], row["who"], row["when"]) for row in table.rows]
    assert found == [
        ("Jicama, 2 Pack", "snacks", who, "2026-11-30T09:12:07Z"),
        ("Bellweather Lane Steamed Beets 6 Count", "frozen", who, "2026-11-30T09:12:08Z"),
    ]
    assert {(row["source"], row["previous_label"]) for row in table.rows} == {
        ("suspected label", "produce")
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}x",
        '[{"data": {}}]',
        '[{"annotations": 3}]',
        "[1]",
        pytest.param("[" * 10**5, id="deep"),
    ],
)
def test_other_json_is_one_line(table: Table, text: str) -> None:
    with pytest.raises(TableError, match="not a Label Studio export"):
        table.add(text, ".json")
