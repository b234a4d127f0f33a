"""The last thing a run says: every figure beside its rivals, and a command that can be typed."""

import io

import pytest
from rich.console import Console

from pipelines.cli.print_summary import show
from pipelines.local.outputs import Finished


def measured(accuracy):
    return {
        "products": 489,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.02,
        "accuracy_high": accuracy + 0.02,
    }


def finished(tmp_path, *, passed=True, read=10_000):
    digest = "d" * 64
    reasons = [
        {"rule": "accuracy", "passed": True, "sentence": "Accuracy is at least 0.93."},
        {"rule": "gap", "passed": passed, "sentence": f"The gap {'is small ' * 20}enough."},
    ]
    summary = {
        "order_lines": {"read": read, "with_nulls": 200, "kept": read - 200},
        "products": 5022,
        "departments": 21,
        "split": {"train": 3911, "validation": 454, "test": 489},
        "metrics": {"test": measured(0.95)},
        "baselines": {
            "linear": measured(0.96),
            "base_model": measured(0.1),
            "majority": measured(0.2),
        },
        "aisles": None,
        "gate": {"passed": passed, "reasons": reasons},
        "bundle": {"path": str(tmp_path / "bundle" / digest), "digest": digest} if passed else None,
    }
    answers = [{"product_name": "Whole Milk", "department": "dairy eggs", "probability": 0.987}]
    return Finished(tmp_path, summary, answers if passed else None)


def shown(given):
    file = io.StringIO()
    show(given, Console(file=file, width=80, highlight=False))
    return file.getvalue()


def test_a_yes_shows_figures_rivals_answers_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = shown(finished(tmp_path))
    assert "10,000 order lines read, 200 with nulls, 9,800 kept" in text
    for row in ("this model               95.0%", "linear model on words    96.0%"):
        assert row in text
    assert "yes: deployed" in text
    assert "Whole Milk   dairy eggs  99%" in text
    assert text.splitlines()[-1].endswith(f"serve --bundle bundle/{'d' * 64}")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_the_aisles_stand_below_where_there_are_some(tmp_path):
    run = finished(tmp_path)
    assert "its aisle" not in shown(run)
    run.summary["aisles"] = measured(0.81)
    assert "and its aisle            81.0%" in shown(run)


def test_a_no_shows_first_what_failed(tmp_path):
    text = shown(finished(tmp_path, passed=False))
    assert "no: nothing is served" in text
    assert text.index("✗ The gap") < text.index("✓ Accuracy")
    assert "serve --bundle" not in text
    sentence = text[text.index("✗") : text.index("✓")].splitlines()
    assert all(len(line) <= 80 for line in sentence)


@pytest.mark.parametrize("read", [0])
def test_without_order_lines_none_are_spoken_of(tmp_path, read):
    assert "order lines" not in shown(finished(tmp_path, read=read))
