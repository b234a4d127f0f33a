"""A toy scorer, and a server around it: the predictor's own behaviour without weights.

`python -m tests.serving.stub --bundle DIR --port N` takes what `python -m serving` takes.
Names steer it: `slow …` sleeps, `poison …` raises for this name, `break …` breaks the device,
`hang …` never returns, `dead …` ends the thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grocer.bundle import Bundle
from grocer.levels import Leaf
from serving import __main__ as command


class Product(NamedTuple):
    name: str
    tokens: int


class StubScorer:
    """Probabilities from a name's hash: deterministic, and each name has its own."""

    def __init__(
        self, labels: Sequence[str], seconds: float = 0.0, leaves: Sequence[Leaf] = ()
    ) -> None:
        self.labels, self.leaves = tuple(labels), tuple(leaves)
        self.seconds, self.broken = seconds, False
        self.passes: list[list[str]] = []

    def products(self, names: Sequence[str]) -> list[Product]:
        return [Product(name, len(name.split()) or 1) for name in names]

    def probabilities(self, names: Sequence[str]) -> NDArray[np.float64]:
        return self.score(self.products(names))

    def score(self, products: Sequence[Product]) -> NDArray[np.float64]:
        names = [product.name for product in products]
        self.passes.append(names)
        if any(name.startswith("dead") for name in names):
            raise SystemExit("the thread was ended")
        self.broken = self.broken or any(name.startswith("break") for name in names)
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if any(name.startswith("poison") for name in names):
            raise ValueError("a name that the model cannot read")
        if any(name.startswith("hang") for name in names):
            time.sleep(3600)
        time.sleep(self.seconds + 0.3 * sum(name.startswith("slow") for name in names))
        return np.stack([self._row(name) for name in names])

    def _row(self, name: str) -> NDArray[np.float64]:
        digest = sha256(name.encode()).digest()
        weights = np.frombuffer(digest[: len(self.labels)], np.uint8) + 1.0
        row = np.asarray(weights**3 / (weights**3).sum())
        if not self.leaves:
            return row
        best = self.labels[int(row.argmax())]
        given = np.frombuffer(sha256(digest).digest()[: len(self.leaves)], np.uint8) + 1.0
        given = given * [department == best for department, _ in self.leaves]
        return np.append(row, row.max() * given / max(given.sum(), 1.0))


def main(hold: Path | None = None) -> int:
    """Serve, as the command line says; load once the file `hold` exists."""
    from serving import server

    def load(bundle: Bundle) -> StubScorer:
        while hold is not None and not hold.exists():
            time.sleep(0.02)
        return StubScorer(bundle.labels, leaves=bundle.leaves)

    server.scorer_loader = lambda config, base=None: load
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
