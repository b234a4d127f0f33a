"""HTTP load on a predictor: closed loop (clients wait for responses) or open loop (fixed rate)."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import re
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).parent.parent / "examples" / "catalogue"


class Load:
    """Status codes and latencies of requests."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.seconds: list[float] = []

    @property
    def succeeded(self) -> int:
        return self.codes[200]

    def record(self, code: int, seconds: float) -> None:
        self.codes[code] += 1
        if code == 200:
            self.seconds.append(seconds)

    def summary(self, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [float("nan")]
        return {
            "per_second": round(self.succeeded / seconds, 1),
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
            "p99_ms": round(1000 * ordered[int(0.99 * len(ordered))], 1),
            "codes": {str(code): count for code, count in sorted(self.codes.items())},
        }


async def closed_loop(url: str, clients: int, items: int, seconds: float) -> Load:
    """Run clients that send their next request after each response."""
    load, end = Load(), time.monotonic() + seconds

    async def client() -> None:
        connection = await Connection.open(url)
        while time.monotonic() < end:
            await connection.predict(items, load)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return load


async def open_loop(url: str, rate: float, seconds: float) -> Load:
    """Send requests at a fixed rate over keep-alive connections, opened as needed.

    A request whose connection the server closes has the code 0.
    """
    load, idle, started = Load(), [], time.monotonic()
    tasks: set[asyncio.Task[None]] = set()

    async def send() -> None:
        connection = idle.pop() if idle else await Connection.open(url)
        try:
            await connection.predict(1, load)
        except ConnectionError:  # more connections than the server allows
            load.codes[0] += 1
        else:
            idle.append(connection)

    for number in range(int(rate * seconds)):
        delay = started + number / rate - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.create_task(send())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return load


class Connection:
    """A keep-alive connection with a minimal HTTP client, which costs little CPU."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        host, _, port = url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def predict(self, items: int, load: Load) -> None:
        body = json.dumps({"instances": [random_name() for _ in range(items)]}).encode()
        head = (
            "POST /v1/models/grocer:predict HTTP/1.1\r\nhost: loopback\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        started = time.monotonic()
        self._writer.write(head.encode() + body)
        response = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", response, re.IGNORECASE)
        assert length is not None
        await self._reader.readexactly(int(length[1]))
        load.record(int(response[9:12]), time.monotonic() - started)

    def close(self) -> None:
        self._writer.close()


def random_name() -> str:
    """Return a product name of the sample catalogue; the predictor does not cache."""
    return random.choice(_names())


@cache
def _names() -> list[str]:
    with (CATALOGUE / "products.csv").open(newline="") as file:
        return [row["product_name"] for row in csv.DictReader(file)]
