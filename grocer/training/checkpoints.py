"""Checkpoints that outlive the machine: in a directory or an object store, whole or passed over.

    <train.checkpoints>/<run>/run.json                what the run is, for a person to read
                             /checkpoint-000050/...   the Trainer's own files
                             /checkpoint-000050/whole.json   written last: each file's SHA-256

A run is named by a digest of all that decides its weights, so no other run resumes from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grocer import progress as console
from grocer.io.atomic import json_digest, tree_digests
from grocer.io.storage import Storage

_WHOLE = "whole.json"
_KEPT = 2


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, root: str, identity: Mapping[str, Any]) -> None:
        """Open the place, and see that it can be written.

        Args:
            root: a local directory, or a URI that fsspec knows.
            identity: all that decides the run's weights.

        Raises:
            OutputError: it can't be written.
        """
        self.run = json_digest(identity)[:16]
        self.address = f"{root.rstrip('/')}/{self.run}"
        self.storage = Storage(self.address, setting="train.checkpoints", step="train")
        self._write("run.json", identity, indent=2, sort_keys=True)

    def publish(self, checkpoint: Path) -> str:
        """Copy one of the Trainer's `checkpoint-N` directories there; older ones but one go.

        Raises:
            OutputError: it can't be written.
        """
        name = f"checkpoint-{_step(checkpoint.name):06d}"
        files = tree_digests(checkpoint)
        if self.storage.exists(name):
            self.storage.remove(name)
        for file in files:
            self.storage.put(checkpoint / file, f"{name}/{file}")
        self._write(f"{name}/{_WHOLE}", files)
        for old in self._names()[_KEPT:]:
            self.storage.remove(old)
        return f"{self.address}/{name}"

    def newest(self, into: Path) -> Path | None:
        """Fetch the newest whole checkpoint; torn ones are passed over, with a line each.

        Returns:
            `into/checkpoint-N`, or None where there is no whole one.

        Raises:
            OutputError: the place can't be read.
        """
        for name in self._names():
            local = into / f"checkpoint-{_step(name)}"
            fault = self._fetch(name, local)
            if fault is None:
                return local
            shutil.rmtree(local, ignore_errors=True)
            console.say("train", f"passing over {self.address}/{name}: it is torn ({fault})")
        return None

    def _fetch(self, name: str, local: Path) -> str | None:
        """Copy a checkpoint; what is wrong with it, or None."""
        local.mkdir(parents=True)
        present = self.storage.find(name)
        if _WHOLE not in present:
            return f"no {_WHOLE}"
        try:
            wanted = json.loads(self.storage.read_bytes(f"{name}/{_WHOLE}"))
        except ValueError:
            return f"{_WHOLE} can't be read"
        for file in wanted:
            if file not in present:
                return f"{file} is not there"
            (local / file).parent.mkdir(parents=True, exist_ok=True)
            self.storage.get(local / file, f"{name}/{file}")
        found = tree_digests(local)
        changed = [file for file in wanted if found.get(file) != wanted[file]]
        return f"{changed[0]} is not what was written" if changed else None

    def _names(self) -> list[str]:
        """Names of the checkpoints there, newest first."""
        names = [name for name in self.storage.list() if name.startswith("checkpoint-")]
        return sorted(names, reverse=True)

    def _write(self, name: str, value: Any, **options: Any) -> None:
        self.storage.write_bytes(json.dumps(value, **options).encode(), name)


def _step(name: str) -> int:
    return int(name.rpartition("-")[2])
