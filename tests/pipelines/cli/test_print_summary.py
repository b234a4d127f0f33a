"""The summary of a run: every metric with its baselines, the gate, and the next command."""

import dataclasses
import io

from rich.console import Console

from grocer.artifacts.base import BySide
from grocer.artifacts.metrics import AisleMetrics
from grocer.artifacts.run_summary import RunSummary, Verdict
from grocer.events import Reason
from pipelines.cli.print_summary import show, show_block
from pipelines.local.outputs import Finished
from tests.fixtures.artifacts import hierarchical_metrics
from tests.fixtures.evaluations import evaluation, parse

EVALUATION = parse(evaluation())
TEST = EVALUATION.metrics.test
AISLES = AisleMetrics.model_validate(hierarchical_metrics()["metrics"]["test"])


def finished(tmp_path, *, passed=True, read=10_000, aisles=None):
    digest = "d" * 64
    reasons = (
        Reason(rule="accuracy", passed=True, sentence="Accuracy is at least 0.93."),
        Reason(rule="gap", passed=passed, sentence=f"The gap {'is small ' * 20}enough."),
    )
    summary = RunSummary(
        order_lines={"read": read, "with_nulls": 200, "kept": max(read - 200, 0)},
        products=5022,
        departments=21,
        split=BySide(train=3911, validation=454, test=489),
        strategy=EVALUATION.combination.strategy,
        classifiers=EVALUATION.classifiers,
        metrics=EVALUATION.metrics,
        baselines=EVALUATION.baselines,
        operating_points=EVALUATION.operating_points,
        aisles=aisles,
        gate=Verdict(passed=passed, reasons=reasons),
        bundle={"path": str(tmp_path / "bundle" / digest), "digest": digest} if passed else None,
        seconds={},
        peak_rss_mb={},
    )
    predictions = [{"product_name": "Whole Milk", "department": "dairy eggs", "probability": 0.987}]
    return Finished(tmp_path, summary, predictions if passed else None)


def output(run):
    file = io.StringIO()
    show(run, Console(file=file, width=80, highlight=False))
    return file.getvalue()


def test_passed_run_shows_metrics_predictions_and_next_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = output(finished(tmp_path))
    assert "10,000 order lines: 9,800 kept, 200 with missing values" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["Accuracy", "test", "accuracy", f"{TEST.accuracy:.1%}"] in [line[:4] for line in lines]
    linear = f"{EVALUATION.baselines['linear'].accuracy:.1%}"
    assert ["linear", "baseline", linear] in [line[:3] for line in lines]
    assert ["Gate", "passed:", "bundle", "written", "and", "tested"] in lines
    assert "Whole Milk   dairy eggs  99%" in text
    assert text.splitlines()[-1].endswith(f"serve --bundle bundle/{'d' * 64}")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_product_name_does_not_control_the_terminal(tmp_path):
    run = finished(tmp_path)
    names = ("\x1b[31mMilk\nwith", "x" * 1000)
    predictions = [run.predictions[0] | {"product_name": name} for name in names]
    text = output(dataclasses.replace(run, predictions=predictions))
    assert " [31mMilk with" in text
    assert f"   {'x' * 59}…   dairy eggs  99%\n" in text


def test_classifiers_are_compared_side_by_side(tmp_path):
    lines = [line.split() for line in output(finished(tmp_path)).splitlines()]
    rows = {line[0]: line[1:] for line in lines if line and line[0] in EVALUATION.classifiers}
    assert rows["adapter"] == ["90.7%", "0.300", "0.020", "100", "selected"]
    assert rows["linear"][:4] == ["80.7%", "0.400", "0.030", "100"]
    assert {"ensemble", "cascade"} <= rows.keys()


def test_negative_calibration_error_is_shown_as_zero(tmp_path):
    run = finished(tmp_path)
    classifiers = parse(evaluation(ece=(-0.02, 0.9))).classifiers
    summary = run.summary.model_copy(update={"classifiers": classifiers})
    (line,) = [
        line.split()
        for line in output(dataclasses.replace(run, summary=summary)).splitlines()
        if line.endswith("selected")
    ]
    assert line[3] == "0.000"


def test_aisle_accuracy_is_shown_if_there_are_aisles(tmp_path):
    assert "aisle accuracy" not in output(finished(tmp_path))
    assert "aisle accuracy      70.0%" in output(finished(tmp_path, aisles=AISLES))


def test_failed_run_shows_failed_rules_first(tmp_path):
    text = output(finished(tmp_path, passed=False))
    assert "failed: nothing deployed" in text
    assert text.index("✗ The gap") < text.index("✓ Accuracy")
    assert "serve --bundle" not in text
    sentence = text[text.index("✗") : text.index("✓")].splitlines()
    assert all(len(line) <= 80 for line in sentence)
    assert len(sentence) > 1


def test_only_the_heading_is_bold_on_a_terminal():
    file = io.StringIO()
    show_block(Console(file=file, force_terminal=True, color_system="standard"), "Data", "30")
    assert file.getvalue() == "\x1b[1mData         \x1b[0m30\n"


def test_order_lines_are_optional(tmp_path):
    assert "order lines" not in output(finished(tmp_path, read=0))
