"""Checkpoints in a directory or object store that outlives the pod.

    <train.checkpoints>/<run>/run.json                all inputs of the run, for reference
                             /checkpoint-000050/...   the Trainer's files
                             /checkpoint-000050/whole.json   size and SHA-256 of each file,
                                                             written last

`<run>` is a digest of everything that determines the weights, so no other run resumes from it.
A checkpoint without `whole.json`, or with other files than it lists, is incomplete and skipped.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grocer.io.atomic import json_digest
from grocer.io.storage import Storage
from grocer.io.trees import get_tree, put_tree
from grocer.progress import say

_NAME = re.compile(r"checkpoint-[0-9]{6,12}")
_KEPT = 2


class Checkpoints:
    """The published checkpoints of one run; methods raise OutputError if access fails.

    Args:
        root: a local directory, or a URI that fsspec knows; must be writable.
        identity: everything that determines the run's weights.
    """

    def __init__(self, root: str, identity: Mapping[str, Any]) -> None:
        self.address = f"{root.rstrip('/')}/{json_digest(identity)[:16]}"
        self.storage = Storage(self.address, setting="train.checkpoints", step="train")
        content = json.dumps(identity, indent=2, sort_keys=True).encode()
        self.storage.write_bytes(content, "run.json")

    def publish(self, checkpoint: Path) -> str:
        """Copy one of the Trainer's `checkpoint-N` directories and return the copy's address.

        The two newest checkpoints are kept.
        """
        name = f"checkpoint-{_step(checkpoint.name):06d}"
        put_tree(checkpoint, self.storage, name)
        for old in self._names()[_KEPT:]:
            self.storage.remove(old)
        return f"{self.address}/{name}"

    def fetch_newest(self, target: Path) -> Path | None:
        """Fetch the newest complete checkpoint to `target/checkpoint-N`; None if there is none."""
        for name in self._names():
            local = target / f"checkpoint-{_step(name)}"
            problem = get_tree(self.storage, name, local)
            if problem is None:
                return local
            shutil.rmtree(local, ignore_errors=True)
            say("train", f"skipping incomplete checkpoint {self.address}/{name}: {problem}")
        return None

    def _names(self) -> list[str]:
        """Return the names of all checkpoints, newest first."""
        names = [name for name in self.storage.list() if _NAME.fullmatch(name)]
        return sorted(names, key=_step, reverse=True)


def _step(name: str) -> int:
    return int(name.rpartition("-")[2])
