"""One step of the pipeline: timed, measured, whole or absent, and carrying its inputs' digests."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grocer import progress as console
from grocer.errors import GrocerError, OutputError
from grocer.io.atomic import output_directory, read_json, tree_digest, tree_digests, write_json

RECORD = "artifact.json"


@contextmanager
def step(name: str, out: Path, inputs: Mapping[str, Path] | None = None) -> Iterator[Path]:
    """Run the block as step `name`; the directory it yields becomes the artifact `out`.

    `artifact.json` in it says what the step read and made: the digest of each input artifact,
    a SHA-256 for each file, the digest of the whole, seconds (wall clock) and the peak
    resident memory of this process in MiB. A user's mistake is said in one line on stdout
    before it is raised again, so that a person finds it in a pod's log.
    """
    started = time.monotonic()
    with explained(name), output_directory(out) as part:
        yield part
        files = tree_digests(part)
        record = {
            "step": name,
            "inputs": {key: digest_of(path) for key, path in sorted((inputs or {}).items())},
            "files": files,
            "digest": tree_digest(files),
            "seconds": round(time.monotonic() - started, 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
        }
        write_json(part / RECORD, record)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Say a user's mistake in one line before it is raised on."""
    try:
        yield
    except GrocerError as error:
        console.fail(name, str(error))
        raise


def digest_of(artifact: Path) -> str:
    """The digest that an artifact's own record carries."""
    return str(record_of(artifact)["digest"])


def record_of(artifact: Path) -> dict[str, Any]:
    """An artifact's `artifact.json`.

    Raises:
        OutputError: the directory is no artifact of a step.
    """
    path = artifact / RECORD
    if not path.is_file():
        raise OutputError(f"{artifact} has no {RECORD}: it is not what a step of Grocer wrote")
    record = read_json(path)
    assert isinstance(record, dict)
    return record


def peak_rss_mb() -> float:
    """Peak resident memory of this process so far, in MiB (Linux counts KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if os.uname().sysname == "Linux" else 1024**2)
