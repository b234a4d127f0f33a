"""Send products to a predictor and check the digest of the bundle that it serves."""

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
_READY_SECONDS = 180
Prediction = dict[str, Any]
# Without the environment's proxy, which can reach neither loopback nor pods.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def smoke_test(bundle: Path, products: Sequence[str]) -> list[Prediction]:
    """Start a predictor on loopback and return its V1 predictions, each with its `product_name`.

    Args:
        bundle: directory of the bundle, named by its digest.

    Raises:
        DeployError: it exits, does not become ready, serves another bundle or rejects the request.
    """
    with running_predictor(bundle) as url:
        return predict(url, products, bundle.resolve().name, timeout=0)


def predict(url: str, products: Sequence[str], digest: str, *, timeout: float) -> list[Prediction]:
    """Return the predictions of the predictor at `url`, which must serve the bundle `digest`.

    Retries for `timeout` seconds while it is unreachable or still serves another bundle.

    Raises:
        DeployError: the last attempt's failure.
    """
    deadline = time.monotonic() + timeout
    body = json.dumps({"instances": list(products)}).encode()
    while True:
        try:
            response, headers = _request(f"{url}/v1/models/{_MODEL}:predict", body)
            served = headers.get("x-model-digest")
            if served == digest:
                break
            failure = f"the predictor at {url} serves bundle {served}, expected {digest}"
        except urllib.error.HTTPError as error:
            text = error.read(500).decode(errors="replace")
            failure = f"the predictor at {url} rejected the request ({error.code}): {text}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = f"no predictor at {url}: {error}"
        if time.monotonic() >= deadline:
            raise DeployError(failure)
        time.sleep(0.5)
    pairs = zip(products, response["predictions"], strict=True)
    return [{"product_name": product, **prediction} for product, prediction in pairs]


def request_pods(url: str) -> None:
    """Send the request for which the component scale-to-zero starts a pod; accept any response.

    Raises:
        DeployError: there is no response.
    """
    try:
        _request(f"{url}/v2/models/{_MODEL}/ready")
    except (urllib.error.HTTPError, ValueError):
        return
    except (OSError, http.client.HTTPException) as error:
        raise DeployError(f"no gateway at {url}: {error}; check deploy.address") from error


@contextmanager
def running_predictor(
    bundle: Path,
    *,
    settings: Sequence[str] = (),
    command: Sequence[str] = ("-m", "serving.predictor"),
) -> Iterator[str]:
    """Start a predictor on a free loopback port, yield its URL when ready, and stop it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = [word for text in ("drain_seconds=0", *settings) for word in ("--set", text)]
    arguments = [*command, "--bundle", str(bundle), "--port", str(port), *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, f"{url}/v2/models/{_MODEL}/ready", log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            line = _last_line(log)
            raise DeployError(f"the predictor exited with code {process.returncode}: {line}")
        try:
            _request(url)
            return
        except OSError:
            time.sleep(0.05)
    raise DeployError(f"the predictor was not ready after {_READY_SECONDS} s: {_last_line(log)}")


def _request(url: str, body: bytes | None = None) -> tuple[Any, Any]:
    headers = {"content-type": "application/json"}
    with OPENER.open(urllib.request.Request(url, body, headers), timeout=60) as response:
        return json.load(response), response.headers


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1].removeprefix("grocer: ") if lines else "no output"
