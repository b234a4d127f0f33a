"""Speed and memory of a Llama-2-7b on a GPU limited to a T4's memory; SmolLM2's training speed.

    .venv/bin/python benchmarks/training_gpu.py [--minutes 8] [--memory-gib 15] [--out gpu.json]
    .venv/bin/python benchmarks/training_gpu.py --list
    .venv/bin/python benchmarks/training_gpu.py --only 7b-packed-32 7b-plain-32

The weights are random, which affects neither speed nor memory. The 7b trains as on a T4: float16
compute, fp16 mixed precision with GradScaler. It measures training with packed sequences, with
TRL's padded batches and with TRL's batches without padding (32 products per step, or 128), each
with and without activation checkpointing; scoring, against `generate` and, if it is installed,
vLLM's guided choice. Each measurement runs in its own process with a time limit; one that fails is
reported and the others continue. Without a GPU all of them run on the CPU, with small shapes in
float32: that tests the script, the numbers mean nothing.

The last line is one JSON object: `ratio` is products/s, packed over TRL padded; `measurements` has
the results or the errors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.gpu_measurements import MEASUREMENTS, Measurement, perform
from grocer.progress import say

CPU_LIMIT = 600.0
"""Seconds of a measurement without a GPU, where its own limit does not apply."""
NO_GPU = "no GPU: small shapes in float32 on the CPU, not a measurement"
Run = Callable[[Measurement, float], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of the whole run")
    parser.add_argument("--memory-gib", type=float, default=15.0, help="limit of GPU memory")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="maximum training time of a measurement"
    )
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="names of measurements")
    parser.add_argument("--work", type=Path, help="directory for the bases, 18 GB on a GPU")
    parser.add_argument("--out", type=Path, help="file that is updated after each measurement")
    parser.add_argument("--list", action="store_true", help="print the names of all measurements")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(MEASUREMENTS))
        return
    if options.measure:
        limits = (options.memory_gib, options.seconds)
        measurement = MEASUREMENTS[options.measure]
        print(json.dumps(perform(measurement, options.batch, options.work, *limits)))
        return
    if not torch.cuda.is_available():
        say("benchmark", NO_GPU)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        run = subprocess_runner(Path(work), options)
        report = measure_all(selected(options.only), run, options.minutes * 60, options.out)
    print(json.dumps(report))


def selected(names: Sequence[str] | None) -> list[Measurement]:
    """Return the measurements of these names and the bases that they need; without names all."""
    if not names:
        return list(MEASUREMENTS.values())
    needed = {MEASUREMENTS[name].base for name in names}
    return [each for each in MEASUREMENTS.values() if each.name in names or each.name in needed]


def measure_all(
    measurements: Sequence[Measurement], run: Run, seconds: float, out: Path | None = None
) -> dict[str, Any]:
    """Run the measurements one by one; return the report.

    Args:
        run: returns the result of one measurement, or a dictionary with `error`.
        seconds: limit of the whole run; what cannot start before it is skipped.
        out: file to which the report is written after each measurement.
    """
    ends = time.monotonic() + seconds
    results: dict[str, dict[str, Any]] = {}
    for measurement in measurements:
        say("benchmark", measurement.name)
        started = time.monotonic()
        remaining = ends - started
        if "error" in results.get(measurement.base, {}):
            result = {"error": f"{measurement.base} failed"}
        elif remaining <= 0:
            result = {"error": "skipped: the time of the whole run is used up (--minutes)"}
        else:
            limit = measurement.limit if torch.cuda.is_available() else CPU_LIMIT
            result = run(measurement, min(limit, remaining))
        results[measurement.name] = {**result, "wall_s": round(time.monotonic() - started, 1)}
        say("benchmark", f"{measurement.name}: {json.dumps(results[measurement.name])}")
        report = summary(results)
        if out is not None:
            out.write_text(json.dumps(report, indent=2))
    return report


def subprocess_runner(work: Path, options: argparse.Namespace) -> Run:
    """Return a function that performs a measurement in a process; errors are in its result."""
    settings = ["--work", str(work), "--memory-gib", str(options.memory_gib)]
    settings += ["--seconds", str(options.seconds)]

    def run(measurement: Measurement, limit: float) -> dict[str, Any]:
        for batch in measurement.batches:
            command = [sys.executable, __file__, "--measure", measurement.name, *settings]
            result = run_process([*command, "--batch", str(batch)], limit)
            if "out of memory" not in result.get("error", "").lower():
                break
        return result

    return run


def run_process(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Return the JSON object in the last line of a command, or its last line as `error`."""
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {limit:.0f} s"}
    if completed.returncode:
        lines = completed.stderr.strip().splitlines() or ["no output"]
        return {"error": f"exit code {completed.returncode}: {lines[-1][:500]}"}
    result: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return result


def summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report of the results so far."""
    on_gpu = torch.cuda.is_available()

    def ratio(one: str, other: str, key: str) -> float | None:
        values = [results.get(name, {}).get(key) for name in (one, other)]
        return values[0] / values[1] if all(values) else None

    speed = "products_per_second"
    return {
        "ratio": ratio("7b-packed-32", "7b-plain-32", speed),
        "ratio_to_padding_free": ratio("7b-packed-32", "7b-padding-free-32", speed),
        "memory_ratio": ratio("7b-plain-32", "7b-packed-32", "peak_memory_mb"),
        "scoring_ratio": ratio("7b-scoring", "7b-generate", "names_per_second"),
        "scoring_ratio_to_vllm": ratio("7b-scoring", "7b-vllm", "names_per_second"),
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
        "true_shape": on_gpu,
        "note": None if on_gpu else NO_GPU,
        "failed": [name for name, each in results.items() if "error" in each],
        "measurements": dict(results),
    }


if __name__ == "__main__":
    main()
