"""A client's pod: asks the predictor by the name of its Service, as an application does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.api import kubectl
from tests.cluster.pods import pod
from tests.manifests.kustomize import Object

_ASK = (Path(__file__).parent / "inside/ask.py").read_text()
_HAMMER = (Path(__file__).parent / "inside/hammer.py").read_text()
_STAY = "import time; time.sleep(86400)"
NAME = "client"


@dataclass(frozen=True)
class Client:
    """The pod, once it runs."""

    namespace: str

    def ask(self, *requests: tuple[str, Any]) -> list[tuple[int, Any, dict[str, str]]]:
        """(status, JSON, headers) for each (URL, body or None); status 0: nobody answered."""
        given = json.dumps(requests)
        return json.loads(self._exec(_ASK, given=given))

    def samples(self, address: str, path: str, seconds: float) -> list[list[int]]:
        """Pairs of statuses, of `/` and of `path`, asked for again and again until both are 200."""
        given = json.dumps([f"{address}/", f"{address}{path}", seconds])
        return json.loads(self._exec(_ASK, "--samples", given=given, seconds=seconds + 30))

    @contextmanager
    def hammering(self, url: str) -> Iterator[dict[str, Any]]:
        """Predictions asked for without a pause; what came of it is filled in at the end."""
        words = ["kubectl", "exec", "-i", "-n", self.namespace, NAME, "--"]
        process = subprocess.Popen(
            [*words, "python", "-c", _HAMMER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found: dict[str, Any] = {}
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "answered\n", "the first request had no answer"
            yield found
            told, _ = process.communicate("", timeout=60)
            found |= json.loads(told)
        finally:
            process.kill()
            process.wait()

    def _exec(self, script: str, *words: str, given: str, seconds: float = 120) -> str:
        where = ("exec", "-i", "-n", self.namespace, NAME, "--")
        return kubectl(*where, "python", "-c", script, *words, given=given, seconds=seconds)


def client_pod(namespace: str, image: str) -> Object:
    """The pod that `Client` speaks through."""
    made = pod(NAME, namespace, image, ["python", "-c", _STAY])
    made["metadata"]["labels"] = {"grocer-client": "true"}
    return made
