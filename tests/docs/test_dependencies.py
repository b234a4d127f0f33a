"""What Grocer depends on: each package used for a reason, and of a licence looked at.

`make audit` fails where nobody tells of known holes; `pip-audit` stands in for itself there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.documents import section, table

ROOT = Path(__file__).parents[2]
REASONS = (ROOT / "docs/decisions/dependencies.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
]
NAMED = {"core": PROJECT["project"]["dependencies"]} | PROJECT["project"]["optional-dependencies"]
SYSTEM = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""What docs/licences.md is written on."""
LOCKED = {
    (canonicalize_name(package.name), str(package.specifier).removeprefix("=="))
    for package in LOCK
    if package.marker is None or package.marker.evaluate(SYSTEM)
}
PERMISSIVE = {
    *("0BSD", "3-Clause BSD License", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause"),
    *("Apache", "Apache 2.0", "Apache 2.0 License", "Apache Software License", "Apache-2.0"),
    *("Apache-2.0 WITH LLVM-exception", "BSL-1.0", "CC0-1.0", "CNRI-Python", "DFSG approved"),
    *("ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "MIT-CMU", "Zlib"),
    *("PSF-2.0", "Python Software Foundation License"),
}
"""As packages write them. Any other is for docs/decisions/dependencies.md to judge."""


def licences() -> list[list[str]]:
    """Name, version and licence of every package in docs/licences.md."""
    return table((ROOT / "docs/licences.md").read_text())


@pytest.mark.parametrize("extra", NAMED)
def test_every_dependency_has_its_reason_and_every_reason_a_dependency(extra: str) -> None:
    rows = table(section(REASONS, f"## {extra}"))
    assert [row[0] for row in rows] == [f"`{name}`" for name in NAMED[extra]]
    assert all(row[1] for row in rows)


def test_what_is_named_is_imported_and_what_is_imported_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deptry", "--no-ansi", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_another_brings_is_told() -> None:
    """deptry lets pass what its configuration lists; the page says with what each comes."""
    told = set(re.findall(r"`(\w+)`", section(REASONS, "## Imported, but named by another")))
    assert set(PROJECT["tool"]["deptry"]["per_rule_ignores"]["DEP003"]) <= told


def test_the_list_of_licences_is_that_of_the_lock() -> None:
    assert {(canonicalize_name(row[0]), row[1]) for row in licences()} == LOCKED, "`make licences`"


def test_a_licence_that_is_not_permissive_was_judged() -> None:
    rows = table(section(REASONS, "## Licences"))
    judged = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])}
    other = {
        canonicalize_name(name)
        for name, _, licence in licences()
        if not {part.strip() for part in re.split(" AND | OR |;", licence)} <= PERMISSIVE
    }
    assert other == judged


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile and the lock beside a `.venv` whose uv answers as the test says."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.installed").touch()
    return tmp_path


def audit(checkout: Path, answer: str) -> subprocess.CompletedProcess[str]:
    uv = checkout / ".venv/bin/uv"
    uv.write_text(f"#!/bin/sh\n{answer}\n")
    uv.chmod(0o755)
    return subprocess.run(
        ["make", "audit"],
        cwd=checkout,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_audit_that_nobody_answers_is_no_pass(checkout: Path) -> None:
    done = audit(checkout, "echo 'ERROR: absl-py: Dependency not found on PyPI' >&2; exit 1")
    assert done.returncode == 2
    assert "absl-py: Dependency not found on PyPI\n" in done.stderr
    assert "audit: nothing was checked: no service told of known holes" in done.stderr


def test_an_audit_shows_holes_and_fails(checkout: Path) -> None:
    done = audit(checkout, "echo 'torch 2.13.0 PYSEC-1'; exit 1")
    assert done.returncode == 2
    assert "torch 2.13.0 PYSEC-1\n" in done.stdout
    assert "nothing was checked" not in done.stderr


def test_an_audit_asks_for_the_whole_lock_and_skips_nothing(checkout: Path) -> None:
    done = audit(checkout, 'echo "$*" >asked; echo "No known vulnerabilities found" >&2')
    assert done.returncode == 0, done.stderr
    assert "--requirement requirements.lock" in (checkout / "asked").read_text()
    assert "--strict" in (checkout / "asked").read_text()


@pytest.mark.network
def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    """On Linux with PyPI's torch; cyclonedx-py itself holds it to CycloneDX's schema."""
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True)
    bill = json.loads((ROOT / "build/sbom.json").read_text())
    held = {(canonicalize_name(part["name"]), part["version"]) for part in bill["components"]}
    assert {pair for pair in held if pair[0] != "pip"} == LOCKED
    untold = {canonicalize_name(part["name"]) for part in bill["components"] if not told(part)}
    assert untold == {"cuda-toolkit"}


def told(part: dict[str, Any]) -> bool:
    """Whether a component says its licence, or brings its text."""
    return bool(part.get("licenses") or part.get("evidence", {}).get("licenses"))
