"""The versions that kind/up installs belong to the Python packages."""

from __future__ import annotations

import re
from pathlib import Path

from serving.rollout.inference_service import MIN_KSERVE

ROOT = Path(__file__).parents[2]


def test_kserve_in_kind_and_its_package_have_the_same_minor_version() -> None:
    installed = re.search(r"^KSERVE=v(\d+)\.(\d+)", (ROOT / "kind/versions").read_text(), re.M)
    package = re.search(r'"kserve==(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert installed
    assert package
    assert installed.groups() == package.groups()
    assert tuple(map(int, installed.groups())) >= MIN_KSERVE
