"""The GPU benchmark: failures are reported, and every measurement runs on a CPU."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training_gpu
from benchmarks.gpu_measurements import MEASUREMENTS, Measurement, perform
from benchmarks.training_gpu import measure_all, run_process, selected, subprocess_runner

BASE = Measurement(name="base", kind="write")
PACKED = Measurement(name="7b-packed-32", kind="packed", base="base")
PLAIN = Measurement(name="7b-plain-32", kind="plain", base="base", batches=(0, 8, 2))


def test_failed_measurement_does_not_stop_the_others(tmp_path: Path) -> None:
    results = {
        "base": {},
        "7b-packed-32": {"error": "exit code 1"},
        "7b-plain-32": {"products_per_second": 2.0},
    }
    out = tmp_path / "report.json"
    report = measure_all([BASE, PACKED, PLAIN], lambda m, _: results[m.name], 60.0, out)
    assert report["failed"] == ["7b-packed-32"]
    assert report["measurements"]["7b-plain-32"]["products_per_second"] == 2.0
    assert report["ratio"] is None
    assert json.loads(out.read_text()) == report


def test_ratio_is_packed_over_plain() -> None:
    speeds = {"base": 0.0, "7b-packed-32": 12.0, "7b-plain-32": 2.0}
    report = measure_all(
        [BASE, PACKED, PLAIN], lambda m, _: {"products_per_second": speeds[m.name]}, 60.0
    )
    assert report["ratio"] == 6.0


def test_measurements_of_a_failed_base_are_skipped() -> None:
    started = []

    def run(measurement: Measurement, _: float) -> dict[str, Any]:
        started.append(measurement.name)
        return {"error": "exit code 1"}

    report = measure_all([BASE, PACKED], run, 60.0)
    assert started == ["base"]
    assert report["failed"] == ["base", "7b-packed-32"]


def test_measurements_after_the_time_limit_are_skipped() -> None:
    report = measure_all([BASE, PACKED], lambda *_: {}, 0.0)
    assert report["failed"] == ["base", "7b-packed-32"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('x'); print('{\"a\": 1}')", {"a": 1}),
        ("raise SystemExit('out of memory')", {"error": "exit code 1: out of memory"}),
        ("import os; os._exit(3)", {"error": "exit code 3: no output"}),
    ],
)
def test_result_of_a_process(code: str, expected: dict[str, Any]) -> None:
    assert run_process([sys.executable, "-c", code], 60.0) == expected


def test_process_is_stopped_at_its_limit() -> None:
    result = run_process([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert "stopped" in result["error"]


def test_smaller_batches_are_tried_if_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []

    def process(command: list[str], _: float) -> dict[str, Any]:
        batches.append(command[-1])
        return {} if batches[-1] == "8" else {"error": "exit code 1: CUDA out of memory"}

    monkeypatch.setattr(training_gpu, "run_process", process)
    options = argparse.Namespace(memory_gib=15.0, seconds=1.0)
    assert subprocess_runner(Path(), options)(PLAIN, 60.0) == {}
    assert batches == ["0", "8"]


def test_selected_measurements_include_their_base() -> None:
    assert [each.name for each in selected(["7b-generate"])] == ["7b-base", "7b-generate"]
    assert len(selected(None)) == len(MEASUREMENTS)


def test_measurements_run_on_a_cpu(tmp_path: Path) -> None:
    kinds = ("7b-base", "7b-packed-32", "7b-padding-free-32", "7b-scoring", "7b-generate")
    results = {
        name: perform(MEASUREMENTS[name], 8, tmp_path, memory_gib=15.0, seconds=0.0)
        for name in kinds
    }
    packed, other = results["7b-packed-32"], results["7b-padding-free-32"]
    assert packed["steps"] == 1
    assert packed["losses"] == pytest.approx(other["losses"], abs=1e-4)
    assert results["7b-scoring"]["names_per_second"] > 0
    assert results["7b-generate"]["names_per_second"] > 0
