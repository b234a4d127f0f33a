"""Number of CPU cores and threads to use."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def threads(spare: int = 0) -> int:
    """CPU threads for torch: `OMP_NUM_THREADS` if it is set, otherwise all cores but `spare`."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    return int(configured) if configured.isdecimal() else max(1, cores() - spare)


def cores() -> int:
    """Cores that this process may use: by its affinity, and by its container's CPU limit.

    torch looks at the affinity alone: in a pod limited to 2 cores of a node with 64 it would
    start 64 threads that take each other's time.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _LIMIT.read_text().partition(" ") if _LIMIT.is_file() else ("max", "", "")
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
