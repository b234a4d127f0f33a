"""Runs one step of the pipeline: reports its events, and writes its artifact with a record."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grocer import progress
from grocer.errors import ArtifactError, GrocerError
from grocer.events import emit
from grocer.io.atomic import output_directory, read_json, tree_digest, tree_digests, write_json

RECORD = "artifact.json"
RUN_VARIABLE, IMAGE_VARIABLE = "GROCER_RUN_ID", "GROCER_IMAGE"


@contextmanager
def step(name: str, out: Path, inputs: Mapping[str, Path] | None = None) -> Iterator[Path]:
    """Run the block as step `name`, inside `reported` and `recorded`."""
    with reported(name), recorded(name, out, inputs) as part:
        yield part


@contextmanager
def recorded(name: str, out: Path, inputs: Mapping[str, Path] | None = None) -> Iterator[Path]:
    """Yield a directory that becomes the artifact `out` when the block succeeds.

    `artifact.json` in it holds the digest of each input artifact, the SHA-256 of each file, the
    digest of all files, the duration in seconds, the peak resident memory of this process in MiB,
    the run and its image, when the run's first step started, and when this one finished (UTC).
    """
    started, run_started = time.monotonic(), _now()
    with output_directory(out) as part:
        yield part
        files = tree_digests(part)
        sources = {key: record_of(path) for key, path in sorted((inputs or {}).items())}
        record = {
            "step": name,
            "inputs": {key: str(source["digest"]) for key, source in sources.items()},
            "files": files,
            "digest": tree_digest(files),
            "seconds": round(time.monotonic() - started, 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "run": os.environ.get(RUN_VARIABLE) or None,
            "image": os.environ.get(IMAGE_VARIABLE) or None,
            "run_started": min([run_started, *(each["run_started"] for each in sources.values())]),
            "finished": _now(),
        }
        write_json(part / RECORD, record)


@contextmanager
def reported(name: str) -> Iterator[None]:
    """Emit the events `started`, and `succeeded` or `failed`, of step `name`.

    A process that is killed emits neither of the last two.
    """
    started = time.monotonic()
    emit(name, "started")
    try:
        yield
    except GrocerError as error:
        progress.fail(name, str(error))
        raise
    except Exception as error:
        emit(name, "failed", text=progress.one_line(f"{type(error).__name__}: {error}"))
        raise
    emit(name, "succeeded", seconds=round(time.monotonic() - started, 3))


def digest_of(artifact: Path) -> str:
    """Return the digest in an artifact's record."""
    return str(record_of(artifact)["digest"])


def verified_files(artifact: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file of an artifact, and compare them with its record.

    Returns:
        The SHA-256 by relative path, without the record itself.

    Raises:
        ArtifactError: a file was changed, added or removed after the step wrote the artifact.
    """
    record, files = record_of(artifact), tree_digests(artifact)
    del files[RECORD]
    changed = {name for name, _ in files.items() ^ record["files"].items()}
    if changed or tree_digest(files) != record["digest"]:
        name = min(changed, default=RECORD)
        raise ArtifactError(f"{artifact} was modified: {name} was changed; run the step again")
    return files


def record_of(artifact: Path) -> dict[str, Any]:
    """Return the content of an artifact's `artifact.json`.

    Raises:
        ArtifactError: the directory is not the artifact of a step.
    """
    path = artifact / RECORD
    if not path.is_file():
        raise ArtifactError(f"{artifact}: no {RECORD}; it was not written by a step of Grocer")
    record = read_json(path)
    if not isinstance(record, dict):
        raise ArtifactError(f"{path}: not a JSON object; run the step again")
    return record


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process in MiB (Linux reports KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if os.uname().sysname == "Linux" else 1024**2)
