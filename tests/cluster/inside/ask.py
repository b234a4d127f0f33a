"""In a client's pod: ask what standard input says, and print the answers as JSON."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def ask(url: str, body: Any = None, seconds: float = 20) -> tuple[int, Any, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), dict(error.headers)
    except OSError as error:
        return 0, str(error), {}


given = json.load(sys.stdin)
if sys.argv[1:] == ["--samples"]:
    live, ready, seconds = given
    found: list[tuple[int, int]] = []
    until = time.monotonic() + seconds
    while found[-1:] != [(200, 200)] and time.monotonic() < until:
        found.append((ask(live, seconds=2)[0], ask(ready, seconds=2)[0]))
        time.sleep(0.05)
    print(json.dumps(found))
else:
    print(json.dumps([ask(*request) for request in given]))
