"""Runs in the client pod: send the requests on standard input and print the responses as JSON."""

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def send(
    url: str, body: Any = None, host: str = "", timeout: float = 20
) -> tuple[int, Any, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"host": host} if host else {})
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), dict(error.headers)
    except OSError as error:
        return 0, str(error), {}


arguments = json.load(sys.stdin)
if sys.argv[1:] == ["--poll"]:
    live_url, ready_url, seconds = arguments
    statuses: list[tuple[int, int]] = []
    deadline = time.monotonic() + seconds
    while statuses[-1:] != [(200, 200)] and time.monotonic() < deadline:
        statuses.append((send(live_url, timeout=2)[0], send(ready_url, timeout=2)[0]))
        time.sleep(0.05)
    print(json.dumps(statuses))
else:
    print(json.dumps([send(*request) for request in arguments]))
