"""Benchmarks of the predictor: overhead, batching, overload, and classification of a file.

    .venv/bin/python benchmarks/serving.py [--bundle DIR] [--seconds 20] [--names 20000]

On loopback: CPU time of a request with 32 names, compared with a no-op model in KServe's server;
throughput of 64 clients with and without batching; an open loop at twice that throughput; and
`grocer classify`. Without --bundle, a tiny model is trained first, which takes a minute.
The last line is a JSON object; `ratio` is the throughput with batching divided by that without.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import CATALOGUE, closed_loop, open_loop, random_name
from grocer.progress import say
from serving.rollout.smoke_test import running_predictor

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
    parser.add_argument("--bundle", type=Path, help="directory of a bundle (default: train one)")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each load")
    parser.add_argument("--names", type=int, default=20_000, help="names in the file to classify")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle or make_bundle(Path(scratch))
        results = {
            "seconds": options.seconds,
            "overhead": overhead(bundle, options.seconds / 2),
            "batching": batching(bundle, options.seconds),
        }
        results["overload"] = overload(bundle, options.seconds, results["batching"])
        results["classify"] = classification(bundle, options.names, Path(scratch))
    print(json.dumps({"ratio": results["batching"]["speedup"], **results}))


def overhead(bundle: Path, seconds: float) -> dict[str, float]:
    """Return the CPU milliseconds of a request with 32 names: predictor, no-op, forward pass."""
    say("benchmark", "overhead of a request with 32 names")
    with noop() as url:
        noop_cpu = cpu_per_request(url, seconds)
    forward = forward_cpu(bundle)
    with running_predictor(bundle) as url:
        predictor_cpu = cpu_per_request(url, seconds)
    return {
        "noop_cpu_ms": noop_cpu,
        "forward_cpu_ms": forward,
        "predictor_cpu_ms": predictor_cpu,
        "overhead_ratio": round(predictor_cpu / (noop_cpu + forward), 3),
        "limit": 1.3,
    }


def cpu_per_request(url: str, seconds: float) -> float:
    before = cpu(url)
    load = asyncio.run(closed_loop(url, clients=1, items=ITEMS, seconds=seconds))
    return round(1000 * (cpu(url) - before) / load.succeeded, 3)


def forward_cpu(bundle: Path) -> float:
    """Return the median CPU milliseconds to score 32 names with one thread, in a subprocess."""
    code = (
        "import time, sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from grocer.inference.classifier import Classifier\n"
        "from benchmarks.load import random_name; from benchmarks.serving import ITEMS\n"
        "classifier = Classifier.load(Path(sys.argv[1]), token_budget=512); spent = []\n"
        "for _ in range(30):\n"
        "    names = [random_name() for _ in range(ITEMS)]; start = time.process_time()\n"
        "    classifier.predict(names); spent.append(time.process_time() - start)\n"
        "print(1000 * sorted(spent)[15])"
    )
    command = [sys.executable, "-c", code, str(bundle)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return round(float(done.stdout.split()[-1]), 3)


def batching(bundle: Path, seconds: float) -> dict[str, Any]:
    """Return the throughput of 64 clients that send single names, with and without batching."""
    results: dict[str, Any] = {"clients": CLIENTS}
    for label, settings in (("with", ()), ("without", ("token_budget=1",))):
        say("benchmark", f"{CLIENTS} clients, {label} batching")
        with running_predictor(bundle, settings=("queue_seconds=60", *settings)) as url:
            load = asyncio.run(closed_loop(url, CLIENTS, 1, seconds))
        results[label] = load.summary(seconds)
    speedup = results["with"]["per_second"] / results["without"]["per_second"]
    return results | {"speedup": round(speedup, 2)}


def overload(bundle: Path, seconds: float, capacity: dict[str, Any]) -> dict[str, Any]:
    """Return latency, memory and recovery at twice the throughput of 64 clients (open loop)."""
    rate = 2 * capacity["with"]["per_second"]
    say("benchmark", f"overload with {rate:.0f} requests a second")
    with running_predictor(bundle) as url:
        # The first run opens the connections, which need memory; the second must not need more.
        asyncio.run(open_loop(url, rate, seconds / 2))
        memory = resident(url)
        load = asyncio.run(open_loop(url, rate, seconds))
        started = time.monotonic()
        wait_until_ready(url)
        results = {**load.summary(seconds), "sent_per_second": round(rate, 1)}
        results["ready_again_seconds"] = round(time.monotonic() - started, 2)
        results["memory_growth_mb"] = round(resident(url) - memory, 1)
    results["p99_ratio"] = round(results["p99_ms"] / capacity["with"]["p99_ms"], 2)
    return results


def classification(bundle: Path, names: int, scratch: Path) -> dict[str, float]:
    """Return throughput and peak memory for a file, and peak memory for a tenth of it."""
    say("benchmark", f"classify {names:,} names")
    results = {}
    for label, count in (("tenth", names // 10), ("all", names)):
        source, out = scratch / f"{label}.csv", scratch / f"{label}-out.csv"
        with source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "product_name"])
            writer.writerows((i, random_name()) for i in range(count))
        start = time.monotonic()
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            from grocer.inference.batch import classify

            classify(source, out, bundle)
            os._exit(0)
        _, status, used = os.wait4(pid, 0)
        assert status == 0
        results[label] = (time.monotonic() - start, used.ru_maxrss / 1024)
    return {
        "names": names,
        "names_per_second": round(names / results["all"][0], 1),
        "peak_mb": round(results["all"][1], 1),
        "peak_mb_of_a_tenth": round(results["tenth"][1], 1),
    }


@contextmanager
def noop() -> Iterator[str]:
    """Run KServe's server with a model that does nothing; yield its URL."""
    port = 18_099
    command = [sys.executable, "-c", NOOP.replace("PORT", str(port))]
    devnull = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=devnull, stderr=devnull) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url)
            yield url
        finally:
            process.terminate()


def wait_until_ready(url: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"{url}/v2/models/grocer/ready", timeout=10):
            return
        time.sleep(0.1)
    raise TimeoutError


def server(url: str) -> psutil.Process:
    """Return the process that listens on the port of a URL."""
    port = int(url.rpartition(":")[2])
    for each in psutil.net_connections("tcp"):
        if each.pid and each.status == psutil.CONN_LISTEN and each.laddr.port == port:
            return psutil.Process(each.pid)
    raise LookupError(url)


def cpu(url: str) -> float:
    """Return the CPU seconds of the server."""
    times = server(url).cpu_times()
    return times.user + times.system


def resident(url: str) -> float:
    """Return the resident memory of the server in MiB."""
    return server(url).memory_info().rss / 1024**2


def make_bundle(root: Path) -> Path:
    """Train a tiny model on the sample catalogue and return its bundle; quality is irrelevant."""
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
