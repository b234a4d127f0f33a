"""A predictor's life: refused, loading, draining, failing; seen from outside the process."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from grocer.errors import DeployError
from grocer.release.bundle import Bundle
from serving.rollout.smoke_test import running_predictor, smoke_test
from tests.fixtures.artifacts import make_bundle
from tests.serving.conftest import READY, Running, Start

STUB = ("-m", "tests.fixtures.predictor")


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def code_of(running: Running, path: str) -> int:
    try:
        return running.get(path).status_code
    except httpx.TransportError:
        return 0


def test_it_lives_while_it_loads_and_is_ready_only_then(
    start_any: Start, stub_bundle: Bundle, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    running = start_any(stub_bundle, hold=go)
    until(lambda: code_of(running, "/v2/health/live") == 200)
    for path in (READY, "/v1/models/grocer", "/v2/health/ready"):
        assert code_of(running, path) == 503
    answer = running.predict("Milk")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    go.touch()
    running.until_ready()
    assert running.predict("Milk").status_code == 200
    assert running.code(signal.SIGINT) == 0


def test_sigterm_answers_what_is_in_flight_and_what_still_comes(
    start_any: Start, stub_bundle: Bundle
) -> None:
    running = start_any(stub_bundle, "drain_seconds=1").until_ready()
    codes: list[int] = []
    stop = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=running.url, timeout=20, trust_env=False) as line:
            while not stop.is_set():
                try:
                    answer = line.post("/v1/models/grocer:predict", json={"instances": ["slow"]})
                except httpx.ConnectError:
                    return  # the port is closed: nothing was taken that could be lost
                codes.append(answer.status_code)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(codes) > 3)
    running.process.terminate()
    until(lambda: code_of(running, READY) == 503)
    answer = running.predict("Milk")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert running.code() == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert set(codes) == {200}


@pytest.mark.parametrize("name", ["break", "dead", "hang"])
def test_a_failed_device_ends_the_server_with_an_error(
    start_any: Start, stub_bundle: Bundle, name: str
) -> None:
    running = start_any(stub_bundle, "stall_seconds=0.5").until_ready()
    assert running.predict(name).status_code == 503
    assert code_of(running, "/v2/health/live") in (503, 0)
    assert running.code() == 1
    assert "the model failed" in running.log.read_text()


def test_a_client_that_goes_away_leaves_the_queue(start_any: Start, stub_bundle: Bundle) -> None:
    running = start_any(stub_bundle).until_ready()
    slow = threading.Thread(target=running.predict, args=["slow"] * 8)
    slow.start()
    time.sleep(0.5)  # it is in a forward pass by now, for two seconds more
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{running.url}/v1/models/grocer:predict",
            json={"instances": ["gone"] * 50},
            timeout=0.2,
            trust_env=False,
        )
    slow.join()
    running.predict("Milk")
    assert "grocer_items_total 9.0" in running.get("/metrics").text
    assert '"abandoned": true' in running.log.read_text()
    assert running.code(signal.SIGINT) == 0


def test_overload_is_429_with_retry_after_and_passes(start_any: Start, stub_bundle: Bundle) -> None:
    running = start_any(
        stub_bundle, "max_items=4", "queue_seconds=60", "deadline_seconds=0.9"
    ).until_ready()
    answers: list[httpx.Response] = []

    def ask(names: list[str]) -> None:
        answers.append(
            httpx.post(
                f"{running.url}/v1/models/grocer:predict",
                json={"instances": names},
                timeout=20,
                trust_env=False,
            )
        )

    threads = [threading.Thread(target=ask, args=[["slow"] * 4]) for _ in range(8)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) <= {429, 504}
    assert 429 in codes
    assert 504 in codes
    assert all("retry-after" in a.headers for a in answers if a.status_code == 429)
    until(lambda: running.predict("Milk").status_code == 200)
    assert running.code(signal.SIGINT) == 0


@pytest.mark.parametrize("harm", ["no", "touched"])
def test_a_bundle_that_must_not_serve_is_one_line_and_code_2(
    tmp_path: Path, harm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path)
    if harm == "touched":
        (bundle.path / "labels.json").write_text("[]")
    else:
        text = (bundle.path / "bundle.json").read_text()
        (bundle.path / "bundle.json").write_text(text.replace('"passed": true', '"passed": false'))
    with pytest.raises(DeployError, match=r"exited with code 2: .* was touched"):
        smoke_test(bundle.path, ["Milk"])


def test_smoke_asks_a_real_process_and_stops_it(stub_bundle: Bundle) -> None:
    with running_predictor(stub_bundle.path, command=STUB) as url:
        assert httpx.get(url + READY).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + READY)


def test_smoke_stops_the_predictor_on_ctrl_c(stub_bundle: Bundle) -> None:
    with pytest.raises(KeyboardInterrupt), running_predictor(stub_bundle.path, command=STUB) as url:
        raise KeyboardInterrupt
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + READY)
