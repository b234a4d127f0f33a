"""Load on a predictor over HTTP: single clients that wait for answers, or a rate that does not."""

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
    """What clients saw."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.seconds: list[float] = []

    @property
    def answered(self) -> int:
        return self.codes[200]

    def note(self, code: int, seconds: float) -> None:
        self.codes[code] += 1
        if code == 200:
            self.seconds.append(seconds)

    def summary(self, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [float("nan")]
        return {
            "per_second": round(self.answered / seconds, 1),
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
            "p99_ms": round(1000 * ordered[int(0.99 * len(ordered))], 1),
            "codes": {str(code): count for code, count in sorted(self.codes.items())},
        }


async def closed_loop(url: str, clients: int, items: int, seconds: float) -> Load:
    """Each client sends its next request when the last is answered."""
    load, until = Load(), time.monotonic() + seconds

    async def client() -> None:
        line = await Line.open(url)
        while time.monotonic() < until:
            await line.ask(items, load)
        line.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return load


async def open_loop(url: str, rate: float, seconds: float) -> Load:
    """Requests at a fixed rate over kept connections, as many as it takes."""
    load, idle, started = Load(), [], time.monotonic()
    tasks: set[asyncio.Task[None]] = set()

    async def once() -> None:
        line = idle.pop() if idle else await Line.open(url)
        await line.ask(1, load)
        idle.append(line)

    for number in range(int(rate * seconds)):
        ahead = started + number / rate - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(once())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for line in idle:
        line.close()
    return load


class Line:
    """A kept connection that speaks just enough HTTP to cost little."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Line:
        host, _, port = url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, items: int, load: Load) -> None:
        body = json.dumps({"instances": [name() for _ in range(items)]}).encode()
        head = (
            "POST /v1/models/grocer:predict HTTP/1.1\r\nhost: loopback\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        started = time.monotonic()
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
        assert length is not None
        await self._reader.readexactly(int(length[1]))
        load.note(int(answer[9:12]), time.monotonic() - started)

    def close(self) -> None:
        self._writer.close()


def name() -> str:
    """A product's name, as shops write them; the predictor keeps no answers."""
    return random.choice(_names())


@cache
def _names() -> list[str]:
    with (CATALOGUE / "products.csv").open(newline="") as file:
        return [row["product_name"] for row in csv.DictReader(file)]
