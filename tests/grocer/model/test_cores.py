"""Protects the number of threads: a container's limit counts, not the cores of its node."""

import os

import pytest

from grocer.model import cores as module
from grocer.model.cores import cores


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),  # half a core is one thread
        ("9900000 100000\n", 16),  # more than there are
        (None, 16),
    ],
)
def test_the_lesser_of_affinity_and_limit(monkeypatch, tmp_path, limit, expected):
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(module, "_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cores() == expected


def test_without_affinity_every_core_counts(monkeypatch, tmp_path):
    """As on macOS, which has neither."""
    monkeypatch.setattr(module, "_LIMIT", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6
