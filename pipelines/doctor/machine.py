"""Check this machine: Python, packages, torch, 4-bit weights, GPU, memory and disk."""

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

from pipelines.doctor.report import Finding, failed, install_command, ok, optional
from pipelines.local.output_dir import MIN_FREE

PYTHONS = ((3, 11), (3, 12))
EXTRAS = ("data", "train", "serve", "pipeline")
"""Extras that a local run needs."""
MEMORY = 5 * 2**30
"""Bytes: training SmolLM2 peaks at 4.1 GiB; the rest is for the local runner."""
_GIB = 2**30
_DEVICE_SECONDS = 120  # importing torch from a slow disk takes most of it
_DRIVER = Path("/proc/driver/nvidia/version")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_MAX_LISTED = 4


def python(version: tuple[int, ...] = sys.version_info[:2]) -> Finding:
    """Check the interpreter's version."""
    text = f"{platform.python_version()} at {sys.executable}"
    if version in PYTHONS:
        return ok("Python", text)
    return failed("Python", text, "install Python 3.11 or 3.12, then: make setup", needed=True)


def packages(extras: tuple[str, ...] = EXTRAS) -> Finding:
    """Check that the packages of the extras are installed in the required versions."""
    try:
        required = _requirements(extras)
    except metadata.PackageNotFoundError:
        return failed("Packages", "grocer is not installed", "make setup", needed=True)
    problems = dict[str, str]()
    for name, (versions, extra) in sorted(required.items()):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            problems[f"{name} is not installed"] = extra
        else:
            if not versions.contains(version, prereleases=True):
                problems[f"{name} is {version}, required {versions}"] = extra
    if not problems:
        return ok("Packages", f"all {len(required)} of {', '.join(extras)}")
    more = f" and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
    next_step = install_command(*sorted(set(problems.values())))
    text = f"{'; '.join(list(problems)[:_MAX_LISTED])}{more}"
    return failed("Packages", text, next_step, needed=True)


def _requirements(extras: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """Return the required versions of each package, and the extra that requires it ("": none)."""
    from packaging.requirements import Requirement  # a dependency of matplotlib

    required, pending = dict[str, tuple[Any, str]](), ["", *extras]
    for extra in pending:  # grows, as an extra can include another
        for text in metadata.requires("grocer") or []:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name == "grocer":
                pending += sorted(requirement.extras - set(pending))
            else:
                required.setdefault(requirement.name, (requirement.specifier, extra))
    return required


def devices() -> list[Finding]:
    """Check torch, 4-bit weights and the GPU in a child process."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "pipelines.doctor.device"],
            capture_output=True,
            text=True,
            timeout=_DEVICE_SECONDS,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        text = f"no response within {_DEVICE_SECONDS} s"
        return [failed("torch", text, "check dmesg and nvidia-smi", needed=True)]
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        return [failed("torch", lines[-1], install_command("train"), needed=True)]
    return device_findings(json.loads(child.stdout.splitlines()[-1]))


def device_findings(device: Mapping[str, Any]) -> list[Finding]:
    """Return the findings for the output of `pipelines.doctor.device`."""
    nf4 = ok("NF4 on the CPU", "output and gradients are correct")
    if error := device["nf4"]:
        next_step = install_command("train")
        nf4 = failed("NF4 on the CPU", f"bitsandbytes: {error}", next_step, needed=True)
    return [ok("torch", device["torch"]), nf4, _gpu(device["gpu"], device["torch"])]


def _gpu(gpu: Mapping[str, Any] | None, torch: str) -> Finding:
    if gpu is None and _DRIVER.exists():
        text = f"a driver is installed, but torch {torch} finds no device"
        return failed("GPU", text, "nvidia-smi; torch must be a CUDA build: pip show torch")
    if gpu is None:
        text = "none; --recipe smollm2 runs on the CPU, --recipe llama2-7b-t4 needs a T4"
        return optional("GPU", text, "docs/cluster.md#gke-with-a-t4")
    text = f"{gpu['name']}, {gpu['memory'] / _GIB:.1f} GiB; {gpu['precision']}"
    if gpu["nf4"]:
        return failed("GPU", f"{text}; NF4: {gpu['nf4']}", "python -m bitsandbytes")
    return ok("GPU", f"{text}; NF4 computes in {gpu['dtype']}")


def memory() -> Finding:
    """Check the available memory, of the machine or of its control group."""
    available, total = _memory()
    text = f"{available / _GIB:.1f} of {total / _GIB:.1f} GiB available"
    if available >= MEMORY:
        return ok("Memory", text)
    next_step = f"free memory; the sample catalogue needs {MEMORY / _GIB:.1f} GiB"
    return failed("Memory", text, next_step, needed=True)


def _memory() -> tuple[float, float]:
    """Return the available and the total bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = available = os.sysconf("SC_PHYS_PAGES") * page
    if _MEMINFO.exists():
        lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_CGROUP / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (maximum := limit.read_text().strip()) != "max":
        total = min(total, int(maximum))
        available = min(available, max(0, int(maximum) - int(used.read_text())))
    return available, total


def disk(path: Path | None = None) -> Finding:
    """Check that a run can write to `path`, by default the working directory."""
    path = (path or Path.cwd()).absolute()
    free = shutil.disk_usage(path).free
    text = f"{free / _GIB:.1f} GiB free in {path}"
    if not os.access(path, os.W_OK | os.X_OK):
        return failed("Disk", f"{path} is not writable", "choose another --out", needed=True)
    if free >= MIN_FREE:
        return ok("Disk", text)
    next_step = f"free {MIN_FREE // 2**20} MiB, or choose another --out"
    return failed("Disk", text, next_step, needed=True)
