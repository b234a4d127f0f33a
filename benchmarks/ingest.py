"""Compare ingest and validation with pandas, Polars and Spark, at Instacart's scale.

Generates orders and order lines of Instacart's shape (see orders.py), then runs jobs, each in its
own process: Grocer's ingest, Grocer's validation, and others that compute the same tables and
counts. The last line is one JSON object: `over_ingest` is each of the others over ingest, in
wall-clock and CPU seconds and in peak resident memory of the process tree; `ratio` is the lowest of
them in wall-clock seconds.

At scale 1 pandas takes about 14 GB. It runs last, and each ingest starts after a pause of a minute,
because a virtual machine is slow for a minute after it has freed gigabytes. With --rounds the jobs
alternate and the fastest round of each counts, because other guests slow down a shared machine.

    python benchmarks/ingest.py                     # pandas at full scale
    python benchmarks/ingest.py --rounds 3
    python benchmarks/ingest.py --scales 1 2 3      # growth of ingest and validation, no others
    .venv/bin/uv pip install --python .venv/bin/python --target build/polars polars==2.1.0
    PYTHONPATH=build/spark:build/polars python benchmarks/ingest.py --scale 0.1 \\
        --others polars_join pandas_join ingest_with_spark         # build/spark: make test-spark
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from orders import generate

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.2
REST_SECONDS = 60.0
JOINS = {
    "orders": "order_id",
    "products": "product_id",
    "aisles": "aisle_id",
    "departments": "department_id",
}
"""Tables to which order lines are joined, and the key."""


def pandas_join(source: Path, out: Path) -> None:
    """Join as the reference study does: read all, merge all, drop rows with nulls."""
    import pandas as pd

    names = ("order_products__prior", "order_products__train")
    lines = pd.concat([pd.read_csv(source / f"{name}.csv") for name in names])
    joined = lines
    for table, key in JOINS.items():
        joined = joined.merge(pd.read_csv(source / f"{table}.csv"), on=key)
    kept = joined.dropna()
    counts = {"read": len(lines), "with_nulls": len(joined) - len(kept), "kept": len(kept)}
    (out / "counts.json").write_text(json.dumps({"order_lines": counts}))


def polars_join(source: Path, out: Path) -> None:
    """Join as the reference study does with Polars' streaming engine, and write Parquet."""
    import polars as pl

    names = ("order_products__prior", "order_products__train")
    lines = pl.concat([pl.scan_csv(source / f"{name}.csv") for name in names])
    joined = lines
    for table, key in JOINS.items():
        joined = joined.join(pl.scan_csv(source / f"{table}.csv"), on=key)
    kept = joined.drop_nulls()
    counts = [frame.select(pl.len()) for frame in (lines, joined, kept)]
    file = kept.sink_parquet(out / "polars.parquet", lazy=True)
    *counted, _ = pl.collect_all([*counts, file], engine="streaming")
    read, total, complete = (frame.item() for frame in counted)
    result = {"read": read, "with_nulls": total - complete, "kept": complete}
    (out / "counts.json").write_text(json.dumps({"order_lines": result}))


def ingest(source: Path, out: Path, engine: str = "duckdb", name: str = "tables") -> None:
    """Run Grocer's step with default settings."""
    from grocer.artifacts.step import step
    from grocer.config.stages import DataConfig
    from grocer.ingest.run import run

    with step("ingest", out / name) as part:
        run(str(source), DataConfig(engine=engine), part)


def ingest_with_spark(source: Path, out: Path) -> None:
    """Run Grocer's step with data.engine=spark."""
    ingest(source, out, engine="spark", name="spark")


def validate(source: Path, out: Path) -> None:
    """Run Grocer's step on the tables that `ingest` wrote to `out`."""
    from grocer.artifacts.counts import Counts
    from grocer.artifacts.step import step
    from grocer.config.recipes import recipe
    from grocer.validation.run import run

    with step("validate", out / "report", {"tables": out / "tables"}) as part:
        run(Counts.read(out / "tables"), recipe("tiny"), part).require_success()


OTHERS = {job.__name__: job for job in (pandas_join, polars_join, ingest_with_spark)}
JOBS = {"ingest": ingest, "validate": validate, **OTHERS}


def measure(job: str, source: Path, out: Path) -> dict[str, float]:
    """Run a job in a process; return wall-clock and CPU seconds, and the peak MB of its tree."""
    command = [sys.executable, __file__, "--job", job, str(source), str(out)]
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr, env=environment)
    peaks, children, ended = [0], [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peaks.append(_resident_bytes(process.pid))
            children.append(_seconds_of_children(process.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    ended.set()
    sampler.join()
    if status:
        sys.exit(f"{job} ended with status {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime + max(children), 2),
        "peak_mb": round(max(peaks) / 1024**2, 1),
    }


def _resident_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its children, or its own peak if larger.

    `ru_maxrss` is unsuitable, because a child process starts with its parent's value.
    """
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
        resident = sum(member.memory_info().rss for member in tree)
        status = Path(f"/proc/{pid}/status").read_text()
    except (psutil.Error, OSError):  # the process has ended
        return 0
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return max(resident, int(peak[1]) * 1024 if peak else 0)


def _seconds_of_children(pid: int) -> float:
    """Return the CPU seconds of running children, such as Spark's JVM."""
    try:
        times = [child.cpu_times() for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    return sum(time.user + time.system for time in times)


def one_scale(
    catalogue: Path, scale: float, work: Path, jobs: list[str], rounds: int = 1
) -> dict[str, Any]:
    """Generate the files of one scale, run the jobs, and check that their counts are equal."""
    source, out = work / f"source-{scale:g}", work / f"out-{scale:g}"
    print(f"generating orders and order lines at scale {scale:g} in {source}", file=sys.stderr)
    generate(catalogue, source, scale)
    result: dict[str, Any] = {"scale": scale, "rounds": rounds}
    counts = []
    for job in jobs * rounds:
        if job == jobs[0]:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            time.sleep(REST_SECONDS * min(1.0, scale))
        usage = measure(job, source, out)
        print(f"{job}: {usage}", file=sys.stderr)
        result[job] = min(result.get(job, usage), usage, key=lambda each: each["seconds"])
        if job != "validate":
            tables = {"ingest": out / "tables", "ingest_with_spark": out / "spark"}.get(job, out)
            lines = json.loads((tables / "counts.json").read_text())["order_lines"]
            counts.append({key: lines[key] for key in ("read", "with_nulls", "kept")})
    assert all(count == counts[0] for count in counts), counts
    return {**result, "order_lines": counts[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--catalogue", type=Path, default=ROOT / "examples" / "catalogue")
    parser.add_argument("--scale", type=float, default=1.0, help="1: Instacart's 33.8 M lines")
    parser.add_argument(
        "--rounds", type=int, default=1, help="number of rounds; the fastest counts"
    )
    parser.add_argument(
        "--scales", type=float, nargs="+", help="compare growth with scale, without pandas"
    )
    parser.add_argument("--others", choices=OTHERS, nargs="+", default=["pandas_join"])
    parser.add_argument(
        "--work", type=Path, help="directory for generated files, about 2 GB at scale 1"
    )
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        name, source, out = options.job
        JOBS[name](Path(source), Path(out))
        return
    with tempfile.TemporaryDirectory(prefix="grocer-", dir=options.work) as work:
        if options.scales:
            jobs = ["ingest", "validate"]
            runs = [
                one_scale(options.catalogue, scale, Path(work), jobs) for scale in options.scales
            ]
            print(json.dumps(growth(runs)))
            return
        jobs = ["ingest", "validate", *options.others]
        result = one_scale(options.catalogue, options.scale, Path(work), jobs, options.rounds)
    ours = result["ingest"]
    result["over_ingest"] = {
        other: {name: round(result[other][name] / ours[name], 2) for name in ours}
        for other in options.others
    }
    result["ratio"] = min(each["seconds"] for each in result["over_ingest"].values())
    print(json.dumps(result))


def growth(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the growth of time and memory relative to the first run; 1 is linear growth."""
    scales = [run["scale"] for run in runs]

    def over_first(usage: str, of_both: Callable[[list[float]], float]) -> dict[float, float]:
        values = [of_both([run[job][usage] for job in ("ingest", "validate")]) for run in runs]
        return {scale: value / values[0] for scale, value in zip(scales, values, strict=True)}

    def over_linear(usage: str) -> dict[str, float]:
        growth = over_first(usage, sum)
        return {f"{scale:g}": round(growth[scale] / (scale / scales[0]), 3) for scale in scales}

    seconds = over_linear("seconds")
    return {
        "runs": runs,
        "ratio": round(1 / max(seconds.values()), 3),
        "seconds_over_linear": seconds,
        "cpu_over_linear": over_linear("cpu_seconds"),
        "peak_over_first": {f"{s:g}": round(g, 3) for s, g in over_first("peak_mb", max).items()},
    }


if __name__ == "__main__":
    main()
