"""`grocer review` and `--corrections`."""

import csv
import json
from pathlib import Path

import pytest

from grocer.artifacts.evaluation import Evaluation
from grocer.review import queue
from grocer.review.queue import Candidate
from pipelines.cli.main import execute
from tests.fixtures.evaluations import evaluation as report
from tests.fixtures.evaluations import parse


@pytest.fixture
def run(tmp_path: Path) -> Path:
    evaluated = tmp_path / "run" / "artifacts" / "evaluate"
    evaluated.mkdir(parents=True)
    evaluation: Evaluation = parse(report())
    evaluation.write(evaluated)
    return tmp_path / "run"


def candidate(name: str, purchases: int = 1) -> Candidate:
    return Candidate(name, "x", "", (("produce", 0.5), ("bakery", 0.5)), 0.5, purchases)


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    """Return the candidates of every run, for a test to fill."""
    candidates: list[Candidate] = []
    monkeypatch.setattr(queue, "run_candidates", lambda run: (candidates, ("produce", "bakery")))
    return candidates


def test_import_adds_rows_and_lists_conflicts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = Evaluation.read(run / "artifacts" / "evaluate").labels[:2]
    file = tmp_path / "reviewed.csv"
    file.write_text(f"name,label,who\nTea,{one},ann\ntea,{two},bob\n")
    options = ["--run", str(run), "--corrections", str(tmp_path / "table")]
    assert execute(["review", "import", str(file), *options]) == 0
    out = capsys.readouterr().out
    assert "2 added" in out
    assert f"Tea (ann: {one}, bob: {two})" in out
    file.write_text("name,label,who\nTea,no such label,ann\n")
    assert execute(["review", "import", str(file), *options]) == 2
    assert "no such label" in capsys.readouterr().err


def test_export_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["review", "export", str(tmp_path / "queue.csv"), "--run", str(tmp_path)]
    assert execute(command) == 2
    assert f"{tmp_path}: expected the output directory" in capsys.readouterr().err


def test_export_does_not_overwrite_a_reviewed_file(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewed = run / "queue.csv"
    reviewed.write_text("name,label\nTea,pantry\n")
    assert execute(["review", "export", str(reviewed), "--run", str(run)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert "pantry" in reviewed.read_text()


def test_format_follows_from_the_name_of_the_file(
    tmp_path: Path, candidates: list[Candidate]
) -> None:
    candidates.append(candidate("Plums"))
    first = {}
    for name in ("queue.html", "queue.json", "queue.csv"):
        assert execute(["review", "export", str(tmp_path / name), "--run", str(tmp_path)]) == 0
        first[name] = (tmp_path / name).read_text()[0]
    assert first == {"queue.html": "<", "queue.json": "[", "queue.csv": "\ufeff"}
    assert execute(["review", "export", str(tmp_path / "q.xlsx"), "--run", str(tmp_path)]) == 2


def test_predictions_without_purchases_count_as_the_median_product(
    tmp_path: Path, candidates: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    candidates += [candidate(f"{number} Plums", number) for number in (1, 30, 900)]
    columns = "product_name,predicted_department,predicted_probability,predicted_alternatives"
    predictions, queue = tmp_path / "out.csv", tmp_path / "queue.csv"
    predictions.write_text(f'{columns}\nRye,,0.4,"[[""bakery"", 0.4]]"\n')
    command = ["review", "export", str(queue), "--run", str(tmp_path)]
    assert execute([*command, "--predictions", str(predictions)]) == 0
    with queue.open(newline="", encoding="utf-8-sig") as file:
        rows = [(row["name"], row["purchases"]) for row in csv.DictReader(file)]
    assert rows == [("900 Plums", "900"), ("Rye", "30"), ("30 Plums", "30"), ("1 Plums", "1")]
    queue.unlink()
    assert execute([*command, "--predictions", str(predictions), "--by-probability"]) == 0
    assert queue.read_text().splitlines()[1].startswith('"Rye"')
    queue.unlink()
    predictions.write_text(predictions.read_text().replace("bakery", "bread"))
    assert execute([*command, "--predictions", str(predictions)]) == 2
    assert "'bread' is not a label" in capsys.readouterr().err
    assert not queue.exists()


@pytest.mark.parametrize("command", [["submit"], ["bulk", "submit", "--out", "s3://b/out.csv"]])
def test_pods_cannot_read_local_corrections(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "s3://b/in.csv", "--corrections", json.dumps("local")]
    assert execute([*command, *options]) == 2
    assert "--corrections" in capsys.readouterr().err
