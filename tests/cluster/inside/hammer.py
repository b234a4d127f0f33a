"""In a client's pod: ask for predictions until standard input ends; print what came of it as JSON.

Half of the clients keep their connection, as a pool does; the other half make one a request.
Nothing is asked twice: a request that fails is counted.
"""

from __future__ import annotations

import collections
import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

CLIENTS = 4
host = urlsplit(sys.argv[1]).netloc
body = json.dumps({"instances": ["Organic Milk", "Banana Bread"]})
lock, over, answered = threading.Lock(), threading.Event(), threading.Event()
sent: collections.Counter[str] = collections.Counter()
failures: collections.Counter[str] = collections.Counter()
digests: list[str] = []
begun = last = time.monotonic()
gap = 0.0


def hammer(kept: bool) -> None:
    global last, gap
    connection = http.client.HTTPConnection(host, timeout=20)
    while not over.is_set():
        digest, wrong = "", ""
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/models/grocer:predict", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            digest = answer.headers.get("x-model-digest", "")
            if answer.status != 200 or len(json.loads(said)["predictions"]) != 2:
                wrong = f"{answer.status} {said[:80]!r}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong or not kept:
            connection.close()
        with lock:
            sent["kept" if kept else "new"] += 1
            if wrong:
                failures[f"{'kept' if kept else 'new'} {wrong}"] += 1
            else:
                now = time.monotonic()
                gap, last = max(gap, now - last), now
                answered.set()
                if digest not in digests:
                    digests.append(digest)
        time.sleep(0.2 if wrong else 0.02)


threads = [threading.Thread(target=hammer, args=(bool(n % 2),)) for n in range(CLIENTS)]
for thread in threads:
    thread.start()
answered.wait(60)
print("answered", flush=True)
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(
    json.dumps(
        {
            "sent": sum(sent.values()),
            "failed": sum(failures.values()),
            "failures": failures,
            "digests": digests,
            "longest_gap": round(gap, 2),
            "seconds": round(time.monotonic() - begun, 1),
        }
    )
)
