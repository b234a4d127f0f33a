"""The predictor against KServe's own no-op model, against itself without batching, and overloaded.

    .venv/bin/python benchmarks/serving.py [--bundle DIR] [--seconds 20] [--names 20000]

Four parts, each on loopback: the server's CPU for a request with 32 names; single-name requests
from 64 clients, with batching and without; twice the capacity, open loop; and a file of names
through `grocer.classify`. Without --bundle a tiny one is trained for a minute first.
The last line is one JSON object; `ratio` is throughput with batching over without.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Python puts this folder first, where this very file would hide the package `serving`.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load import CATALOGUE, closed_loop, name, open_loop  # noqa: E402
from grocer.progress import say  # noqa: E402
from serving.rollout.smoke_test import running_predictor  # noqa: E402

CLIENTS, ITEMS = 64, 32
NOOP = """
import sys
from kserve import Model, ModelServer

class Noop(Model):
    async def predict(self, payload, headers=None):
        ranked = [{"department": "produce", "probability": 0.5}] * 3
        one = {"department": "produce", "probability": 0.5, "alternatives": ranked}
        return {"predictions": [one for _ in payload["instances"]]}

model = Noop("grocer")
model.ready = True
ModelServer(http_port=PORT, enable_grpc=False).start([model])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, help="directory of a bundle; else one is made")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--names", type=int, default=20_000, help="in the file to classify")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = given.bundle or make_bundle(Path(scratch))
        found = {
            "seconds": given.seconds,
            "overhead": overhead(bundle, given.seconds / 2),
            "batching": batching(bundle, given.seconds),
        }
        found["overload"] = overload(bundle, given.seconds, found["batching"])
        found["classify"] = bulk(bundle, given.names, Path(scratch))
    print(json.dumps({"ratio": found["batching"]["speedup"], **found}))


def overhead(bundle: Path, seconds: float) -> dict[str, float]:
    """CPU milliseconds for a request with 32 names: ours, and the no-op model's plus a forward."""
    say("benchmark", "overhead of a request with 32 names")
    with noop() as url:
        idle = cpu_per_request(url, seconds)
    forward = forward_cpu(bundle)
    with running_predictor(bundle) as url:
        ours = cpu_per_request(url, seconds)
    return {
        "noop_cpu_ms": idle,
        "forward_cpu_ms": forward,
        "predictor_cpu_ms": ours,
        "overhead_ratio": round(ours / (idle + forward), 3),
        "limit": 1.3,
    }


def cpu_per_request(url: str, seconds: float) -> float:
    before = cpu(url)
    load = asyncio.run(closed_loop(url, clients=1, items=ITEMS, seconds=seconds))
    return round(1000 * (cpu(url) - before) / load.answered, 3)


def forward_cpu(bundle: Path) -> float:
    """CPU milliseconds of scoring 32 names with one thread, in a process of its own."""
    code = (
        "import time, sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from grocer.inference.scorer import Scorer\n"
        "from benchmarks.load import name; from benchmarks.serving import ITEMS\n"
        "scorer = Scorer.load(Path(sys.argv[1]), token_budget=512); spent = []\n"
        "for _ in range(30):\n"
        "    names = [name() for _ in range(ITEMS)]; start = time.process_time()\n"
        "    scorer.predict(names); spent.append(time.process_time() - start)\n"
        "print(1000 * sorted(spent)[15])"
    )
    words = [sys.executable, "-c", code, str(bundle)]
    root = Path(__file__).parent.parent
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    return round(float(done.stdout.split()[-1]), 3)


def batching(bundle: Path, seconds: float) -> dict[str, Any]:
    """Single names from 64 clients, with batching and one name a pass."""
    found: dict[str, Any] = {"clients": CLIENTS}
    for label, settings in (("with", ()), ("without", ("token_budget=1",))):
        say("benchmark", f"{CLIENTS} clients, {label} batching")
        with running_predictor(bundle, settings=("queue_seconds=60", *settings)) as url:
            load = asyncio.run(closed_loop(url, CLIENTS, 1, seconds))
        found[label] = load.summary(seconds)
    found["speedup"] = round(found["with"]["per_second"] / found["without"]["per_second"], 2)
    return found


def overload(bundle: Path, seconds: float, capacity: dict[str, Any]) -> dict[str, Any]:
    """Twice what 64 clients got answered, sent whether or not answers come."""
    rate = 2 * capacity["with"]["per_second"]
    say("benchmark", f"overload with {rate:.0f} requests a second")
    with running_predictor(bundle) as url:
        # Connections cost memory too: the first half opens them, the second must not need more.
        asyncio.run(open_loop(url, rate, seconds / 2))
        memory = resident(url)
        load = asyncio.run(open_loop(url, rate, seconds))
        started = time.monotonic()
        until_true(lambda: ask(url).status == 200)
        found = {**load.summary(seconds), "sent_per_second": round(rate, 1)}
        found["ready_again_seconds"] = round(time.monotonic() - started, 2)
        found["memory_growth_mb"] = round(resident(url) - memory, 1)
    found["p99_ratio"] = round(found["p99_ms"] / capacity["with"]["p99_ms"], 2)
    return found


def bulk(bundle: Path, names: int, scratch: Path) -> dict[str, float]:
    """Names a second and peak memory, and the memory that a tenth of them took."""
    say("benchmark", f"classify {names:,} names")
    found = {}
    for label, count in (("tenth", names // 10), ("all", names)):
        source, out = scratch / f"{label}.csv", scratch / f"{label}-out.csv"
        with source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "product_name"])
            writer.writerows((i, name()) for i in range(count))
        start = time.monotonic()
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            from grocer.inference.batch import classify

            classify(source, out, bundle)
            os._exit(0)
        _, status, used = os.wait4(pid, 0)
        assert status == 0
        found[label] = (time.monotonic() - start, used.ru_maxrss / 1024)
    return {
        "names": names,
        "names_per_second": round(names / found["all"][0], 1),
        "peak_mb": round(found["all"][1], 1),
        "peak_mb_of_a_tenth": round(found["tenth"][1], 1),
    }


@contextmanager
def noop() -> Iterator[str]:
    """KServe's server around a model that does nothing."""
    port = 18_099
    words = [sys.executable, "-c", NOOP.replace("PORT", str(port))]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, stdout=quiet, stderr=quiet)
    try:
        url = f"http://127.0.0.1:{port}"
        until_true(lambda: ask(url).status == 200)
        yield url
    finally:
        process.terminate()
        process.wait()


def until_true(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError


def ask(url: str) -> Any:
    return urllib.request.urlopen(f"{url}/v2/models/grocer/ready", timeout=10)


def server_of(url: str) -> int:
    """The process that listens, by the kernel's tables."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(row[9] for row in rows if row[1].endswith(port) and row[3] == "0A")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:
            continue
    raise LookupError(url)


def cpu(url: str) -> float:
    """CPU seconds that the server has used."""
    fields = Path(f"/proc/{server_of(url)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(url: str) -> float:
    """MiB that the server holds."""
    status = Path(f"/proc/{server_of(url)}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def make_bundle(root: Path) -> Path:
    """A tiny bundle of the sample catalogue, trained for a minute; it need not be good."""
    from grocer.artifacts.adapter import Adapter
    from grocer.artifacts.counts import Counts
    from grocer.artifacts.splits import Splits
    from grocer.artifacts.step import step
    from grocer.config.recipes import recipe
    from grocer.dataset.run import run as build_dataset
    from grocer.evaluation.run import run as evaluate
    from grocer.gate.run import run as gate
    from grocer.ingest.run import run as ingest
    from grocer.release.bundle import write_bundle
    from grocer.training.run import run as train

    config = recipe("tiny").with_settings(
        [
            "train.max_steps=60",
            "evaluation.sample_size=200",
            "gate.min_accuracy=0.0",
            "gate.max_train_test_gap=1.0",
            "gate.baselines=[]",
            "gate.min_department_recall=0.0",
            "gate.max_ece=1.0",
        ]
    )
    tables, splits, model = root / "tables", root / "splits", root / "model"
    evaluation, decision = root / "evaluation", root / "decision"
    with step("ingest", tables) as out:
        ingest(str(CATALOGUE), config.data, out)
    with step("build_dataset", splits, {"tables": tables}) as out:
        build_dataset(Counts.read(tables), config, out)
    with step("train", model, {"splits": splits}) as out:
        train(Splits.read(splits), config, out)
    with step("evaluate", evaluation, {"model": model, "splits": splits}) as out:
        evaluate(Adapter.read(model), Splits.read(splits), config, out)
    with step("gate", decision, {"evaluation": evaluation}) as out:
        gate(evaluation, config.gate, out)
    return write_bundle(model, splits, evaluation, decision, config, root / "bundles").path


if __name__ == "__main__":
    main()
