"""Lifecycle of the process: loading, draining, overload, device failure, invalid bundles."""

import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from grocer import events
from grocer.errors import DeployError
from grocer.progress import say
from grocer.release.bundle import LoadedBundle
from serving.predictor import __main__ as command
from serving.predictor.server import listen
from serving.rollout.smoke_test import smoke_test
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.predictor_process import POST_HEAD, PREDICT, READY, Running, Start


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def status_of(running: Running, path: str) -> int:
    try:
        return running.get(path).status_code
    except httpx.TransportError:
        return 0


def test_server_is_live_while_loading_and_ready_afterwards(
    start_server: Start, stub_bundle: LoadedBundle, tmp_path: Path
) -> None:
    loaded = tmp_path / "loaded"
    running = start_server(stub_bundle, hold=loaded)
    wait_for(lambda: status_of(running, "/v2/health/live") == 200)
    for path in (READY, "/v1/models/grocer", "/v2/health/ready"):
        assert status_of(running, path) == 503
    response = running.predict("Milk")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    loaded.touch()
    running.wait_until_ready()
    assert running.predict("Milk").status_code == 200
    assert running.exit_code(signal.SIGINT) == 0


def test_sigterm_completes_in_flight_and_new_requests_while_draining(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    running = start_server(stub_bundle, "drain_seconds=1").wait_until_ready()
    statuses: list[int] = []
    stop = threading.Event()

    def client() -> None:
        with suppress(httpx.ConnectError):  # the port is closed: no request was accepted
            while not stop.is_set():
                statuses.append(running.predict("slow").status_code)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(statuses) > 3)
    running.process.terminate()
    wait_for(lambda: status_of(running, READY) == 503)
    response = running.predict("Milk")
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    assert running.exit_code() == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


def test_shutdown_answers_incomplete_requests_with_503(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    running = start_server(stub_bundle, "deadline_seconds=0.5").wait_until_ready()
    with running.connect() as client:
        client.sendall(f"{POST_HEAD}content-length: 9\r\n\r\n{{".encode())
        wait_for(lambda: running.predict("Milk").status_code == 200)
        running.process.terminate()
        assert client.recv(65536).startswith(b"HTTP/1.1 503")
    assert running.exit_code() == 0
    assert '"code": 503' in running.log.read_text()
    assert '"code": 499' not in running.log.read_text()


@pytest.mark.parametrize(("name", "seconds"), [("slow", 2.0), ("hang", 0.0)])
def test_exit_waits_a_limited_time_for_the_model_thread(
    start_server: Start, stub_bundle: LoadedBundle, name: str, seconds: float
) -> None:
    running = start_server(stub_bundle, "deadline_seconds=0.1").wait_until_ready()
    started = time.monotonic()
    assert running.predict(*[name] * 8).status_code == 504  # the pass of `slow` takes 2.4 s
    assert running.exit_code(signal.SIGINT) == 0
    assert time.monotonic() - started > seconds


@pytest.mark.parametrize("name", ["break", "dead", "hang", "stall"])
def test_device_failure_stops_the_server_with_code_1(
    start_server: Start, stub_bundle: LoadedBundle, name: str
) -> None:
    running = start_server(stub_bundle, "deadline_seconds=0.2").wait_until_ready()
    assert running.predict(name).status_code in (503, 504)  # 504: the deadline came first
    wait_for(lambda: status_of(running, "/v2/health/live") in (503, 0))
    assert running.exit_code() == 1
    assert "model failed" in running.log.read_text()


def test_request_of_a_disconnected_client_leaves_the_queue(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    running = start_server(stub_bundle).wait_until_ready()
    slow = threading.Thread(target=running.predict, args=["slow"] * 8)
    slow.start()
    time.sleep(0.5)  # the forward pass takes two more seconds
    with pytest.raises(httpx.ReadTimeout):
        running.post(PREDICT, json={"instances": ["gone"] * 50}, timeout=0.2)
    slow.join()
    running.predict("Milk")
    assert "grocer_items_total 9.0" in running.get("/metrics").text
    assert '"abandoned": true' in running.log.read_text()


def test_overload_returns_429_with_retry_after_and_recovers(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    running = start_server(
        stub_bundle, "max_items=4", "queue_seconds=60", "deadline_seconds=0.9"
    ).wait_until_ready()
    with ThreadPoolExecutor(8) as pool:
        futures = []
        for _ in range(8):
            futures.append(pool.submit(running.predict, *["slow"] * 4))
            time.sleep(0.1)
    responses = [future.result() for future in futures]
    assert {response.status_code for response in responses} == {429, 504}
    assert all("retry-after" in r.headers for r in responses if r.status_code == 429)
    wait_for(lambda: running.predict("Milk").status_code == 200)


def test_model_that_cannot_be_loaded_exits_with_code_2(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    running = start_server(stub_bundle, load_error="the weights are missing")
    assert running.exit_code() == 2
    assert running.log.read_text().splitlines()[-1] == "grocer: the weights are missing"


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_port_in_use_exits_with_code_2(
    start_server: Start, stub_bundle: LoadedBundle, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = start_server(stub_bundle, options=[option, str(port)])
        assert running.exit_code() == 2
    text = running.log.read_text()
    assert "live on" not in text
    assert re.match(f"grocer: cannot listen on 127.0.0.1:{port}.*{option}", text.splitlines()[-1])


@pytest.mark.parametrize("defect", ["gate failed", "file changed"])
def test_invalid_bundle_exits_with_code_2(tmp_path: Path, defect: str) -> None:
    bundle = make_bundle(tmp_path)
    if defect == "file changed":
        (bundle.path / "labels.json").write_text("[]")
    else:
        text = (bundle.path / "bundle.json").read_text()
        (bundle.path / "bundle.json").write_text(text.replace('"passed": true', '"passed": false'))
    with pytest.raises(DeployError, match=r"code 2: "):
        smoke_test(bundle.path, ["Milk"])


def test_log_has_no_events_of_pipeline_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["predictor", "--bundle", "b"])
    monkeypatch.setenv(events.VARIABLE, "")
    monkeypatch.delenv(events.VARIABLE)
    monkeypatch.setattr(command, "serve", lambda **_: say("base", "converting"))
    command.main()
    assert events.PREFIX not in capsys.readouterr().out


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv6 is not available")
def test_unspecified_address_of_ipv6_accepts_ipv4() -> None:
    with listen("::", 0) as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()
