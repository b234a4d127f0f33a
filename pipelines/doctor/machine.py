"""What `grocer doctor` finds of this machine: Python, packages, torch, NF4, a GPU, room."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.doctor.report import Finding, install, lacking, ok, unneeded
from pipelines.local.output_dir import ROOM

PYTHONS = ((3, 11), (3, 12))
EXTRAS = ("data", "train", "serve", "pipeline")
"""Those that a run on this machine takes."""
MEMORY = 1.5 * 2**30
"""Bytes: evaluate alone held 1.1 GiB on the sample catalogue, and the runner is beside it."""
_GIB = 2**30
_PATIENCE = 120  # seconds; torch has to be read from the disk
_DRIVER = Path("/proc/driver/nvidia/version")
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_SHOWN = 4


def python(version: tuple[int, ...] = sys.version_info[:2]) -> Finding:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if version in PYTHONS:
        return ok("Python", found)
    return lacking("Python", found, "install Python 3.11 or 3.12, then: make setup", needed=True)


def packages(extras: tuple[str, ...] = EXTRAS) -> Finding:
    """Whether the packages of the extras are there, in the versions that Grocer was made for."""
    try:
        wanted = _requirements(extras)
    except metadata.PackageNotFoundError:
        return lacking("Packages", "Grocer itself is not installed", "make setup", needed=True)
    wrong = dict[str, str]()
    for name, (versions, extra) in sorted(wanted.items()):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong[f"{name} is not installed"] = extra
        else:
            if not versions.contains(version, prereleases=True):
                wrong[f"{name} is {version}, wanted {versions}"] = extra
    if not wrong:
        return ok("Packages", f"all {len(wanted)} of {', '.join(extras)}")
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    then = install(*sorted(set(wrong.values())))
    return lacking("Packages", f"{'; '.join(list(wrong)[:_SHOWN])}{more}", then, needed=True)


def _requirements(extras: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """What Grocer asks for, by name: the versions, and the extra that asks ("" for none)."""
    from packaging.requirements import Requirement  # which matplotlib brings

    found, asking = dict[str, tuple[Any, str]](), ["", *extras]
    for extra in asking:  # grows, as an extra may name another
        for text in metadata.requires("grocer") or []:
            wanted = Requirement(text)
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            if wanted.name == "grocer":
                asking += sorted(wanted.extras - set(asking))
            else:
                found.setdefault(wanted.name, (wanted.specifier, extra))
    return found


def devices() -> list[Finding]:
    """torch, NF4 on the CPU, and a GPU: asked in a process of their own.

    A broken driver may crash or hang whoever asks it.
    """
    command = [sys.executable, "-m", "pipelines.doctor.device"]
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        found = f"no answer within {_PATIENCE} s"
        return [lacking("torch", found, "look at dmesg and nvidia-smi", needed=True)]
    if child.returncode:
        said = child.stderr.strip().splitlines() or [f"ended with {child.returncode}"]
        return [lacking("torch", said[-1], install("train"), needed=True)]
    return told(json.loads(child.stdout.splitlines()[-1]))


def told(device: Mapping[str, Any]) -> list[Finding]:
    """The findings in what `pipelines.doctor.device` printed."""
    found = [ok("torch", device["torch"])]
    if wrong := device["nf4"]:
        then = install("train")
        found.append(lacking("NF4 on the CPU", f"bitsandbytes: {wrong}", then, needed=True))
    else:
        found.append(ok("NF4 on the CPU", "computes, and its gradients are right"))
    return [*found, _gpu(device["gpu"], device["torch"])]


def _gpu(gpu: Mapping[str, Any] | None, torch: str) -> Finding:
    """The GPU that torch sees; --recipe tiny does without."""
    if gpu is None and _DRIVER.exists():
        found = f"a driver is there, but torch {torch} sees no device"
        return lacking("GPU", found, "nvidia-smi; torch must be a CUDA build: pip show torch")
    if gpu is None:
        found = "none; --recipe tiny takes the CPU, --recipe llama2-7b-t4 a T4"
        return unneeded("GPU", found, "docs/cluster.md#gke-with-a-t4")
    name = f"{gpu['name']}, {gpu['memory'] / _GIB:.1f} GiB; {gpu['precision']}"
    if gpu["nf4"]:
        return lacking("GPU", f"{name}; NF4 fails: {gpu['nf4']}", "python -m bitsandbytes")
    return ok("GPU", f"{name}; NF4 computes in {gpu['dtype']}")


def memory() -> Finding:
    """Memory that a run may take now: the machine's, or what its control group leaves."""
    free, total = _memory()
    found = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    if free >= MEMORY:
        return ok("Memory", found)
    then = f"end other programs; the sample catalogue takes {MEMORY / _GIB:.1f} GiB"
    return lacking("Memory", found, then, needed=True)


def _memory() -> tuple[float, float]:
    """Bytes free and in all."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = free = os.sysconf("SC_PHYS_PAGES") * page
    if _MEMINFO.exists():  # Linux knows what its caches would give back
        lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_GROUP / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        total = min(total, int(most))
        free = min(free, max(0, int(most) - int(used.read_text())))
    return free, total


def disk(place: Path | None = None) -> Finding:
    """Room where a run would write, and whether it may."""
    place = (place or Path.cwd()).absolute()
    free = shutil.disk_usage(place).free
    found = f"{free / _GIB:.1f} GiB free in {place}"
    if not os.access(place, os.W_OK | os.X_OK):
        return lacking("Disk", f"{place} can't be written", "choose another --out", needed=True)
    if free >= ROOM:
        return ok("Disk", found)
    then = f"free {ROOM // 2**20} MiB, or choose another --out"
    return lacking("Disk", found, then, needed=True)
