"""The parts of a pod's start, from the pod, its events and the predictor's log."""

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cold_start
from benchmarks.cold_start import main, parts
from grocer.errors import DeployError


def at(seconds: float) -> str:
    return f"2026-11-30T07:00:{seconds:06.3f}Z"


POD: dict[str, Any] = {
    "metadata": {"name": "grocer-predictor-1", "creationTimestamp": at(0)},
    "status": {
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(1)},
            {"type": "Ready", "status": "True", "lastTransitionTime": at(30)},
        ],
        "initContainerStatuses": [
            {
                "name": "storage-initializer",
                "state": {"terminated": {"startedAt": at(4), "finishedAt": at(7)}},
            }
        ],
        "containerStatuses": [
            {
                "name": "kserve-container",
                "restartCount": 0,
                "state": {"running": {"startedAt": at(13)}},
            }
        ],
    },
}
LOG = [
    "a line of another library",
    *(
        json.dumps({"time": at(seconds), "message": message})
        for seconds, message in (
            (15.5, "signature not verified: no trusted key (GROCER_TRUST)"),
            (19.5, "live on http://0.0.0.0:8080"),
            (27.0, "model loaded"),
            (28.5, "ready"),
        )
    ),
]


def pulled(container: str, text: str) -> dict[str, Any]:
    path = f"spec.containers{{{container}}}"
    return {"reason": "Pulled", "message": text, "involvedObject": {"fieldPath": path}}


EVENTS = [
    pulled("kserve-container", 'Successfully pulled image "a/b:1" in 5.25s (5.3s including wait)'),
    pulled("storage-initializer", 'Container image "c" already present on machine'),
    {"reason": "Scheduled", "message": "assigned", "involvedObject": {}},
]


def test_parts_sum_up_to_the_time_until_ready() -> None:
    seconds = parts(POD, EVENTS, LOG)
    assert seconds == pytest.approx(
        {
            "set up storage-initializer": 3.0,
            "run storage-initializer": 3.0,
            "pull the image of kserve-container": 5.25,
            "set up kserve-container": 0.75,
            "start Python and verify the bundle": 2.5,
            "import and start the server": 4.0,
            "load the model": 7.5,
            "score a test name": 1.5,
            "readiness probe": 1.5,
        }
    )
    assert sum(seconds.values()) == pytest.approx(29.0)


def test_pod_without_initializer_and_with_signed_bundle() -> None:
    pod = deepcopy(POD)
    del pod["status"]["initContainerStatuses"]
    log = [line.replace("signature not verified", "bundle is signed by") for line in LOG]
    seconds = parts(pod, [], log)
    assert seconds["set up kserve-container"] == pytest.approx(12.0)


def test_pull_of_a_bundle_that_is_an_image_is_a_part() -> None:
    event = {**pulled("", 'Successfully pulled image "a" in 58ms (…)'), "involvedObject": {}}
    without, found = parts(POD, [], LOG), parts(POD, [event], LOG)
    assert found["pull the image of the bundle"] == pytest.approx(0.058)
    name = "set up kserve-container"
    assert without[name] - found[name] == pytest.approx(0.058, abs=1e-5)


def test_pull_time_is_parsed_with_minutes_and_milliseconds() -> None:
    for text, expected in (("1m2.5s", 62.5), ("350.5ms", 0.3505)):
        event = pulled("kserve-container", f'Successfully pulled image "a" in {text} (…)')
        found = parts(POD, [event], LOG)["pull the image of kserve-container"]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda status: status["conditions"][1].update(status="False"), "not ready"),
        (lambda status: status["containerStatuses"][0].update(restartCount=1), "restarted"),
    ],
)
def test_pod_that_cannot_be_measured_is_rejected(change: Any, reason: str) -> None:
    pod = deepcopy(POD)
    change(pod["status"])
    with pytest.raises(DeployError, match=reason):
        parts(pod, EVENTS, LOG)


def test_log_without_a_line_is_rejected() -> None:
    with pytest.raises(DeployError, match="load the model"):
        parts(POD, EVENTS, [line for line in LOG if "model loaded" not in line])


def test_ratio_is_the_platform_over_the_predictor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {"pods": [POD], "events": EVENTS}

    def kubectl(namespace: str, verb: str, kind: str, *_: str) -> str:
        return "\n".join(LOG) if verb == "logs" else json.dumps({"items": listed[kind]})

    monkeypatch.setattr(cold_start, "kubectl", kubectl)
    monkeypatch.setattr(sys, "argv", ["cold_start"])
    assert main() == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ratio"] == pytest.approx(13.5 / 15.5, abs=0.01)


def test_missing_kubectl_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["cold_start", "--timeout", "1"])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
