"""Runs in the client pod: send predictions until standard input closes, then print statistics.

Half of the threads reuse their connection, like a connection pool; half open one per request.
Requests are not retried, so every failure is counted. The name is resolved only once, because a
failure of the cluster's DNS is not one of the predictor.

load.py URL [HOST]: HOST is the header that selects the route of a gateway.
"""

import collections
import http.client
import json
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

THREADS = 4
url = urlsplit(sys.argv[1])
address = f"{socket.gethostbyname(url.hostname)}:{url.port or 80}"
host = sys.argv[2] if len(sys.argv) > 2 else url.netloc
body = json.dumps({"instances": ["Organic Milk", "Banana Bread"]})
lock, stop, succeeded = threading.Lock(), threading.Event(), threading.Event()
sent = 0
failures: collections.Counter[str] = collections.Counter()
digests: collections.Counter[str] = collections.Counter()
start = last_success = time.monotonic()
longest_gap = 0.0


def send_requests(keep_alive: bool) -> None:
    global sent, last_success, longest_gap
    connection = http.client.HTTPConnection(address, timeout=20)
    while not stop.is_set():
        digest, failure = "", ""
        try:
            headers = {"content-type": "application/json", "host": host}
            connection.request("POST", "/v1/models/grocer:predict", body, headers)
            response = connection.getresponse()
            content = response.read()
            digest = response.headers.get("x-model-digest", "")
            if response.status != 200 or len(json.loads(content)["predictions"]) != 2:
                failure = f"{response.status} {content[:80]!r}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = f"{type(error).__name__}: {error}"
        if failure or not keep_alive:
            connection.close()
        with lock:
            sent += 1
            if failure:
                failures[f"keep-alive={keep_alive}: {failure}"] += 1
            else:
                now = time.monotonic()
                longest_gap, last_success = max(longest_gap, now - last_success), now
                succeeded.set()
                digests[digest] += 1
        time.sleep(0.2 if failure else 0.02)


threads = [threading.Thread(target=send_requests, args=(bool(n % 2),)) for n in range(THREADS)]
for thread in threads:
    thread.start()
succeeded.wait(60)
print("started", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(
    json.dumps(
        {
            "sent": sent,
            "failed": sum(failures.values()),
            "failures": failures,
            "digests": digests,
            "longest_gap": round(longest_gap, 2),
            "seconds": round(time.monotonic() - start, 1),
        }
    )
)
