"""Start the real predictor on loopback, ask it, and stop it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from grocer.errors import DeployError

_MODEL = "grocer"
Answer = dict[str, Any]


def ask(bundle: Path, names: Sequence[str], *, seconds: float = 180.0) -> list[Answer]:
    """V1's predictions for `names`, each with its `product_name`, from a predictor of its own.

    Args:
        bundle: directory of the bundle, named by its digest.
        names: products to ask for.
        seconds: how long it may take to become ready.

    Raises:
        DeployError: it ended early, did not become ready, serves another bundle, or refused.
    """
    with running(bundle, seconds=seconds) as url:
        return ask_at(url, names, bundle.resolve().name, seconds=0)


def ask_at(url: str, names: Sequence[str], digest: str, *, seconds: float) -> list[Answer]:
    """The same of a predictor at `url`, which must serve the bundle of that digest.

    For up to `seconds` it may still be a former predictor that answers, or none.

    Raises:
        DeployError: it serves another bundle, refused, or can't be reached.
    """
    until = time.monotonic() + seconds
    body = json.dumps({"instances": list(names)}).encode()
    while True:
        try:
            answer, headers = _request(f"{url}/v1/models/{_MODEL}:predict", body)
            served = headers.get("x-model-digest")
            if served == digest:
                break
            wrong = f"the predictor at {url} serves {served}, not {digest}"
        except urllib.error.HTTPError as error:
            wrong = f"the predictor at {url} refused: {error.read(500).decode(errors='replace')}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            wrong = f"no predictor answers at {url}: {error}"
        if time.monotonic() >= until:
            raise DeployError(wrong)
        time.sleep(0.5)
    predictions: list[dict[str, Any]] = answer["predictions"]
    return [{"product_name": n, **p} for n, p in zip(names, predictions, strict=True)]


@contextmanager
def running(
    bundle: Path,
    *,
    seconds: float = 180.0,
    settings: Sequence[str] = (),
    command: Sequence[str] = ("-m", "serving.predictor"),
) -> Iterator[str]:
    """A predictor on a free port of loopback, ready; yields its address and always stops it."""
    port = _free_port()
    chosen = [word for text in ("drain_seconds=0", *settings) for word in ("--set", text)]
    words = [*command, "--bundle", str(bundle), "--port", str(port), *chosen]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, f"{url}/v2/models/{_MODEL}/ready", log, seconds)
            yield url
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: IO[str], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise DeployError(f"the predictor ended with code {process.returncode}: {_last(log)}")
        try:
            _request(url)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise DeployError(f"the predictor was not ready after {seconds:g} s: {_last(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _request(url: str, body: bytes | None = None) -> tuple[Any, Any]:
    headers = {"content-type": "application/json"}
    # A proxy of the environment has no business on loopback.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return json.load(answer), answer.headers


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _last(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1].removeprefix("grocer: ") if lines else "it said nothing"
