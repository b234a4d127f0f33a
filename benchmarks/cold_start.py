"""Time from the scheduling of a predictor's pod to its readiness and first answer, by parts.

    .venv/bin/python benchmarks/cold_start.py [--restart] [--url URL [--host HOST]]

Reads the conditions, container states and events of the newest pod and the predictor's log with
kubectl. --restart deletes that pod first and measures its replacement; --url sends requests until
one is answered by a new pod. Kubernetes reports times in whole seconds, so parts that start or end
with a time of Kubernetes have an error of up to 1 s. The last line is one JSON object: `ratio` is
the seconds of Kubernetes, KServe and image pulls over those of the predictor itself.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from grocer.errors import DeployError, GrocerError
from serving.rollout.readiness import CONTAINER, LABEL

Object = Mapping[str, Any]
_PULLED = re.compile(r"Successfully pulled image \S+ in ([\d.hmsµ]+)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "µs": 1e-6}
_LOG_MARKS = (
    ("start Python and verify the bundle", re.compile("is signed by|signature not verified")),
    ("import and start the server", re.compile("live on")),
    ("load the model", re.compile("model loaded")),
    ("score a test name", re.compile("^ready$")),
)


def parts(pod: Object, events: Iterable[Object], log: Sequence[str]) -> dict[str, float]:
    """Return the seconds of each part of a pod's start, in order; they sum up to its duration.

    Args:
        events: of the pod.
        log: lines of the predictor's log.

    Raises:
        DeployError: the pod is not ready, was restarted, or its log lacks a line.
    """
    status = pod["status"]
    conditions = {c["type"]: c for c in status["conditions"]}
    if conditions.get("Ready", {}).get("status") != "True":
        raise DeployError(f"pod {pod['metadata']['name']} is not ready")
    (main,) = (c for c in status["containerStatuses"] if c["name"] == CONTAINER)
    if main["restartCount"]:
        raise DeployError(f"pod {pod['metadata']['name']} was restarted: its log is incomplete")
    marks = [("", _time(conditions["PodScheduled"]["lastTransitionTime"]))]
    for init in status.get("initContainerStatuses", ()):
        if ended := init["state"].get("terminated"):
            marks.append((f"set up {init['name']}", _time(ended["startedAt"])))
            marks.append((f"run {init['name']}", _time(ended["finishedAt"])))
    marks.append((f"set up {CONTAINER}", _time(main["state"]["running"]["startedAt"])))
    marks += _log_marks(log)
    marks.append(("readiness probe", _time(conditions["Ready"]["lastTransitionTime"])))
    seconds: dict[str, float] = {}
    pulls = _pulls(events)
    for (_, start), (name, end) in pairwise(marks):
        container = name.removeprefix("set up ")
        images = (container, "the bundle") if container == CONTAINER else (container,)
        for image in images if container != name else ():
            if image in pulls:
                seconds[f"pull the image of {image}"] = pulls[image]
                start += pulls[image]
        seconds[name] = end - start
    return seconds


def _log_marks(log: Sequence[str]) -> list[tuple[str, float]]:
    """Return the time of the first line for each part that the predictor logs."""
    lines = [json.loads(line) for line in log if line.startswith("{")]
    marks = []
    for name, pattern in _LOG_MARKS:
        found = (line for line in lines if pattern.search(line["message"]))
        if (line := next(found, None)) is None:
            raise DeployError(f"the predictor's log has no line for: {name}")
        marks.append((name, _time(line["time"])))
    return marks


def _pulls(events: Iterable[Object]) -> dict[str, float]:
    """Return the seconds of each image pull, by container; `the bundle` for that of a volume."""
    pulls = {}
    for event in events:
        if event["reason"] == "Pulled" and (match := _PULLED.match(event["message"])):
            container = re.search(r"\{(.*?)\}", event["involvedObject"].get("fieldPath", ""))
            units = re.findall(r"([\d.]+)(ms|µs|h|m|s)", match[1])
            image = container[1] if container else "the bundle"
            pulls[image] = sum(float(n) * _UNITS[unit] for n, unit in units)
    return pulls


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def kubectl(namespace: str, *arguments: str) -> str:
    """Return the output of kubectl.

    Raises:
        DeployError: kubectl is not installed or fails.
    """
    command = ["kubectl", "-n", namespace, *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise DeployError("kubectl is not installed") from error
    except subprocess.CalledProcessError as error:
        raise DeployError(f"kubectl: {error.stderr.strip()}") from error


def newest_pod(namespace: str, service: str) -> Object | None:
    """Return the newest pod of an InferenceService that is not being deleted; None without pods."""
    listed = json.loads(kubectl(namespace, "get", "pods", "-l", f"{LABEL}={service}", "-o", "json"))
    pods = [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]
    return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)


def wait_for_pod(namespace: str, service: str, previous: str, timeout: float) -> Object:
    """Return the newest pod once it is ready; `previous` is the name of a pod to ignore."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pod = newest_pod(namespace, service)
        if pod and pod["metadata"]["name"] != previous:
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
            if conditions.get("Ready") == "True":
                return pod
        time.sleep(1.0)
    raise DeployError(f"{namespace}/{service} has no new ready pod after {timeout:g} s")


def first_answer(url: str, host: str | None, timeout: float) -> tuple[float, int]:
    """Send requests until one succeeds; return the time of the answer, and how many failed.

    Raises:
        DeployError: none succeeds before the timeout.
    """
    headers = {"content-type": "application/json"} | ({"host": host} if host else {})
    body = json.dumps({"instances": ["Organic Bananas"]}).encode()
    request = urllib.request.Request(f"{url}/v1/models/grocer:predict", body, headers)
    deadline, failed = time.monotonic() + timeout, 0
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return datetime.now(UTC).timestamp(), failed
        except OSError:
            failed += 1
            time.sleep(0.2)
    raise DeployError(f"no answer from {url} after {timeout:g} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", "--namespace", default="grocer")
    parser.add_argument("--service", default="grocer", help="name of the InferenceService")
    parser.add_argument("--restart", action="store_true", help="delete the newest pod first")
    parser.add_argument("--url", help="URL of the predictor or of its gateway; sends requests")
    parser.add_argument("--host", help="Host header of the requests")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the pod")
    options = parser.parse_args()
    try:
        measure(options)
    except GrocerError as error:
        print(f"cold_start: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options: argparse.Namespace) -> None:
    """Print the parts of a pod's start, and the time until the first answer if there is a URL."""
    namespace, previous, sent = options.namespace, "", time.time()
    if options.restart and (old := newest_pod(namespace, options.service)):
        previous = old["metadata"]["name"]
        kubectl(namespace, "delete", "pod", previous, "--grace-period=0", "--force")
    answer = first_answer(options.url, options.host, options.timeout) if options.url else None
    pod = wait_for_pod(namespace, options.service, previous, options.timeout)
    name = pod["metadata"]["name"]
    fields = f"involvedObject.kind=Pod,involvedObject.name={name}"
    events = json.loads(
        kubectl(namespace, "get", "events", "--field-selector", fields, "-o", "json")
    )
    log = kubectl(namespace, "logs", name, "-c", CONTAINER).splitlines()
    seconds = parts(pod, events["items"], log)
    for part, value in [*seconds.items(), ("scheduled to ready", sum(seconds.values()))]:
        print(f"{part:40} {value:6.1f} s")
    own = sum(seconds[part] for part, _ in _LOG_MARKS)
    ratio = round((sum(seconds.values()) - own) / own, 2)
    result: dict[str, Any] = {"ratio": ratio, "pod": name, "seconds": seconds}
    if answer:
        result |= {"first_request_to_answer": answer[0] - sent, "failed_requests": answer[1]}
        print(f"first request to first answer: {answer[0] - sent:.1f} s")
        print(f"requests that failed until then: {answer[1]}")
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
