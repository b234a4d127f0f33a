"""Hostile clients against the predictor: do its probes answer, and is its memory bounded?

    .venv/bin/python benchmarks/hostile_clients.py [--bundle DIR] [--seconds 20]
    .venv/bin/python benchmarks/hostile_clients.py --url http://127.0.0.1:8080   # a running one

Each attack runs for `--seconds` while a prober opens a new connection for liveness and for
readiness every 0.2 s. The result of an attack has the slowest probe, failed probes, peak memory
of the server, and the status codes that the clients received (0: connection closed without any).
The exit code is 1 if a probe failed or took longer than 1 s, if a client received a 5xx other than
503 and 504, or if memory exceeded 2 GiB. To limit the server's memory for real, start it in a
cgroup and pass its URL. Without --bundle and --url, a tiny model is trained first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.serving import make_bundle, server
from grocer.progress import say
from serving.rollout.smoke_test import running_predictor

PROBES = ("/v2/health/live", "/v2/models/grocer/ready")
MEGABYTE = 1024**2
MAX_PROBE_SECONDS, MAX_MEMORY_MB = 1.0, 2048
HEAD = "POST /v1/models/grocer:predict HTTP/1.1\r\nhost: loopback\r\n"
Chunks = AsyncIterator[bytes]


async def half_sent_bodies() -> Chunks:
    """A body of 8 MiB of which the last byte never arrives."""
    yield f"{HEAD}content-length: {8 * MEGABYTE}\r\n\r\n".encode()
    for _ in range(127):
        yield b" " * 65_536
    await asyncio.sleep(3600)


async def large_heads() -> Chunks:
    """A request head of 20 MiB."""
    yield f"{HEAD}x: ".encode()
    for _ in range(320):
        yield b"x" * 65_536


async def slow_heads() -> Chunks:
    """A request head of which a byte arrives every half second."""
    for byte in HEAD.encode():
        yield bytes([byte])
        await asyncio.sleep(0.5)


async def idle_connections() -> Chunks:
    """A connection on which nothing is sent."""
    await asyncio.sleep(3600)
    yield b""


async def unread_responses() -> Chunks:
    """Requests without end whose responses are never read."""
    while True:
        yield b"GET /openapi.json HTTP/1.1\r\nhost: loopback\r\n\r\n" * 8


async def hostile_names() -> Chunks:
    """Requests with the maximum number of names, which are as slow to clean as can be."""
    names = cycle(("é[" + " " * 994, "[" * 500 + "]" * 496, "[INST]" * 166, "<|im_start|>" * 83))
    while True:
        body = json.dumps({"instances": [next(names) for _ in range(1024)]}).encode()
        yield f"{HEAD}content-length: {len(body)}\r\n\r\n".encode() + body


ATTACKS: tuple[tuple[Callable[[], Chunks], int, bool], ...] = (
    (half_sent_bodies, 2000, True),
    (large_heads, 200, True),
    (slow_heads, 2000, True),
    (idle_connections, 5000, True),
    (unread_responses, 500, False),
    (hostile_names, 16, True),
)
"""Attack, its number of clients, and whether they read responses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, help="directory of a bundle (default: train one)")
    parser.add_argument("--url", help="URL of a running predictor on this machine")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each attack")
    options = parser.parse_args()
    with predictor(options.url, options.bundle) as url:
        results = {}
        for attack, clients, reads in ATTACKS:
            name = attack.__name__
            say("benchmark", f"{clients:,} clients: {name.replace('_', ' ')}")
            results[name] = measure(url, attack, clients, reads, options.seconds)
            print(json.dumps({name: results[name]}), flush=True)
    slowest = max(result["slowest_probe_seconds"] for result in results.values())
    print(json.dumps({"ratio": round(MAX_PROBE_SECONDS / slowest, 2), **results}))
    sys.exit(not all(passed(result) for result in results.values()))


def passed(result: dict[str, Any]) -> bool:
    errors = [code for code in result["codes"] if code >= "500" and code not in ("503", "504")]
    return (
        not errors
        and not result["failed_probes"]
        and result["slowest_probe_seconds"] <= MAX_PROBE_SECONDS
        and result["peak_memory_mb"] <= MAX_MEMORY_MB
    )


@contextmanager
def predictor(url: str | None, bundle: Path | None) -> Iterator[str]:
    """Yield the URL of a predictor; start one unless `url` is given."""
    if url:
        yield url
        return
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_predictor(bundle or make_bundle(Path(scratch))) as started,
    ):
        yield started


def measure(
    url: str, attack: Callable[[], Chunks], clients: int, reads: bool, seconds: float
) -> dict[str, Any]:
    """Run an attack for `seconds` and return what probes and clients saw."""
    # In its own process, because the clients delay each other in theirs.
    with ProcessPoolExecutor(1) as executor:
        probes = executor.submit(probe, url, seconds)
        codes = asyncio.run(run(url, attack, clients, reads, seconds))
        return {
            "clients": clients,
            **probes.result(),
            "peak_memory_mb": peak_memory(url),
            "codes": {str(code): count for code, count in sorted(codes.items())},
        }


def probe(url: str, seconds: float) -> dict[str, Any]:
    """Probe liveness and readiness for `seconds`, each time on a new connection."""
    spent, failed, paths, end = [], 0, cycle(PROBES), time.monotonic() + seconds
    while (started := time.monotonic()) < end:
        try:
            with urllib.request.urlopen(url + next(paths), timeout=30) as response:
                response.read()
        except OSError:
            failed += 1
        spent.append(time.monotonic() - started)
        time.sleep(0.2)
    return {
        "probes": len(spent),
        "failed_probes": failed,
        "slowest_probe_seconds": round(max(spent), 3),
        "median_probe_seconds": round(sorted(spent)[len(spent) // 2], 4),
    }


async def run(
    url: str, attack: Callable[[], Chunks], clients: int, reads: bool, seconds: float
) -> Counter[int]:
    """Run an attack for `seconds` and return the status codes that the clients received."""
    host, _, port = url.removeprefix("http://").partition(":")
    codes: Counter[int] = Counter()

    async def client() -> None:
        while True:
            with suppress(OSError):
                await connect(host, int(port), attack(), reads, codes)
            await asyncio.sleep(0.1)

    tasks = []
    started = time.monotonic()
    for number in range(clients):
        tasks.append(asyncio.create_task(client()))
        if number % 50 == 49:
            await asyncio.sleep(0)
    await asyncio.sleep(max(0.0, started + seconds - time.monotonic()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return codes


async def connect(host: str, port: int, chunks: Chunks, reads: bool, codes: Counter[int]) -> None:
    """Send chunks on a connection, and count the status codes of the responses."""
    reader, writer = await asyncio.open_connection(host, port, limit=65_536)
    writer.transport.set_write_buffer_limits(0)

    async def send() -> None:
        async for chunk in chunks:
            writer.write(chunk)
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        if not reads:
            writer.transport.pause_reading()
            await sending
        answered = False
        while reads and (line := await reader.readline()):
            if line.startswith(b"HTTP/1.1 "):
                codes[int(line[9:12] or 0)] += 1
                answered = True
        codes[0] += not answered
    finally:
        sending.cancel()
        writer.transport.abort()
        await asyncio.gather(sending, return_exceptions=True)


def peak_memory(url: str) -> float:
    """Return the highest resident memory that the server ever had, in MiB."""
    text = Path(f"/proc/{server(url).pid}/status").read_text()
    return round(int(text.partition("VmHWM:")[2].split()[0]) / 1024, 1)


if __name__ == "__main__":
    main()
