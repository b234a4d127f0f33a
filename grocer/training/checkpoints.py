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
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fsspec

from grocer import progress as console
from grocer.io import storage as remote
from grocer.io.atomic import json_digest, tree_digests

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
        protocol, _, path = root.rpartition("://")
        if protocol:
            self._files = remote.file_system(protocol)
        else:
            self._files, path = (
                fsspec.filesystem("file", auto_mkdir=True),
                str(Path(root).resolve()),
            )
        self._path = f"{path.rstrip('/')}/{self.run}"
        with self._reaching("write"):
            self._put_text("run.json", json.dumps(identity, indent=2, sort_keys=True))

    def publish(self, checkpoint: Path) -> str:
        """Copy one of the Trainer's `checkpoint-N` directories there; older ones but one go.

        Raises:
            OutputError: it can't be written.
        """
        name = f"checkpoint-{_step(checkpoint.name):06d}"
        target = f"{self._path}/{name}"
        files = tree_digests(checkpoint)
        with self._reaching("write"):
            if self._files.exists(target):
                self._files.rm(target, recursive=True)
            for file in files:
                self._files.put_file(str(checkpoint / file), f"{target}/{file}")
            self._put_text(f"{name}/{_WHOLE}", json.dumps(files))
            for old in self._names()[_KEPT:]:
                self._files.rm(f"{self._path}/{old}", recursive=True)
        return f"{self.address}/{name}"

    def newest(self, into: Path) -> Path | None:
        """Fetch the newest whole checkpoint; torn ones are passed over, with a line each.

        Returns:
            `into/checkpoint-N`, or None where there is no whole one.

        Raises:
            OutputError: the place can't be read.
        """
        with self._reaching("read"):
            names = self._names()
        for name in names:
            local = into / f"checkpoint-{_step(name)}"
            with self._reaching("read"):
                fault = self._fetch(name, local)
            if fault is None:
                return local
            shutil.rmtree(local, ignore_errors=True)
            console.say("train", f"passing over {self.address}/{name}: it is torn ({fault})")
        return None

    def _fetch(self, name: str, local: Path) -> str | None:
        """Copy a checkpoint; what is wrong with it, or None."""
        source = f"{self._path}/{name}"
        local.mkdir(parents=True)
        try:
            wanted = json.loads(self._files.cat_file(f"{source}/{_WHOLE}"))
        except FileNotFoundError:
            return f"no {_WHOLE}"
        except ValueError:
            return f"{_WHOLE} can't be read"
        for file in wanted:
            (local / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._files.get_file(f"{source}/{file}", str(local / file))
            except FileNotFoundError:
                return f"{file} is not there"
        found = tree_digests(local)
        changed = [file for file in wanted if found.get(file) != wanted[file]]
        return f"{changed[0]} is not what was written" if changed else None

    def _names(self) -> list[str]:
        """Names of the checkpoints there, newest first."""
        self._files.invalidate_cache()
        found = [str(p).rstrip("/").rpartition("/")[2] for p in self._files.ls(self._path, False)]
        return sorted((name for name in found if name.startswith("checkpoint-")), reverse=True)

    def _put_text(self, name: str, text: str) -> None:
        self._files.pipe_file(f"{self._path}/{name}", text.encode())

    def _reaching(self, action: str) -> AbstractContextManager[None]:
        return remote.reaching(self.address, action, "train.checkpoints")


def _step(name: str) -> int:
    return int(name.rpartition("-")[2])
