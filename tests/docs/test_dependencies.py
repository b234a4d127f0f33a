"""Tests of docs/decisions/dependencies.md, docs/licences.md and `make audit`."""

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
DECISIONS = (ROOT / "docs/decisions/dependencies.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = [
    Requirement(line.removesuffix(" \\"))
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith(("#", " "))
]
DECLARED = {"core": PROJECT["project"]["dependencies"]} | PROJECT["project"][
    "optional-dependencies"
]
SYSTEM = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""The environment that docs/licences.md is generated in."""
LOCKED = {
    (canonicalize_name(package.name), str(package.specifier).removeprefix("=="))
    for package in LOCK
    if package.marker is None or package.marker.evaluate(SYSTEM)
}
PERMISSIVE = {
    *("0BSD", "3-Clause BSD License", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause"),
    *("Apache", "Apache 2.0", "Apache 2.0 License", "Apache Software License", "Apache-2.0"),
    *("Apache-2.0 WITH LLVM-exception", "BSL-1.0", "CC0-1.0", "CNRI-Python", "DFSG approved"),
    *("ISC", "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "MIT-CMU", "Zlib"),
    *("PSF-2.0", "Python Software Foundation License"),
}
"""As written in package metadata. docs/decisions/dependencies.md reviews every other licence."""


def licences() -> list[list[str]]:
    """Return the name, version and licence of every package in docs/licences.md."""
    return table((ROOT / "docs/licences.md").read_text())


@pytest.mark.parametrize("extra", DECLARED)
def test_every_dependency_is_documented(extra: str) -> None:
    rows = table(section(DECISIONS, f"## {extra}"))
    assert [row[0] for row in rows] == [f"`{name}`" for name in DECLARED[extra]]
    assert all(row[1] for row in rows)


def test_declared_dependencies_match_imports() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "deptry", "--no-ansi", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_transitive_imports_are_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", section(DECISIONS, "## Transitive imports")))
    assert set(PROJECT["tool"]["deptry"]["per_rule_ignores"]["DEP003"]) <= documented


def test_licences_page_matches_the_lock() -> None:
    assert {(canonicalize_name(row[0]), row[1]) for row in licences()} == LOCKED, "`make licences`"


def test_every_non_permissive_licence_is_reviewed() -> None:
    rows = table(section(DECISIONS, "## Licences"))
    reviewed = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])}
    non_permissive = {
        canonicalize_name(name)
        for name, _, licence in licences()
        if not {part.strip() for part in re.split(" AND | OR |;", licence)} <= PERMISSIVE
    }
    assert non_permissive == reviewed


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the Makefile and the lock, with an empty `.venv`."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.installed").touch()
    return tmp_path


def audit(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run `make audit` with a shell script in place of uv, which runs pip-audit."""
    uv = checkout / ".venv/bin/uv"
    uv.write_text(f"#!/bin/sh\n{script}\n")
    uv.chmod(0o755)
    return subprocess.run(
        ["make", "audit"],
        cwd=checkout,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_audit_fails_when_the_service_is_unavailable(checkout: Path) -> None:
    result = audit(checkout, "echo 'ERROR: absl-py: Dependency not found on PyPI' >&2; exit 1")
    assert result.returncode == 2
    assert "absl-py: Dependency not found on PyPI\n" in result.stderr
    assert "no packages checked" in result.stderr


def test_audit_reports_vulnerabilities_and_fails(checkout: Path) -> None:
    result = audit(checkout, "echo 'torch 2.13.0 PYSEC-1'; exit 1")
    assert result.returncode == 2
    assert "torch 2.13.0 PYSEC-1\n" in result.stdout
    assert "no packages checked" not in result.stderr


def test_audit_covers_the_whole_lock_and_skips_nothing(checkout: Path) -> None:
    result = audit(checkout, 'echo "$*" >arguments; echo "No known vulnerabilities found" >&2')
    assert result.returncode == 0, result.stderr
    arguments = (checkout / "arguments").read_text()
    assert "--requirement requirements.lock" in arguments
    assert "--strict" in arguments


@pytest.mark.network
def test_bill_of_materials_matches_the_lock() -> None:
    """Needs Linux with PyPI's torch. cyclonedx-py itself validates against CycloneDX's schema."""
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True)
    components = json.loads((ROOT / "build/sbom.json").read_text())["components"]
    packages = {(canonicalize_name(c["name"]), c["version"]) for c in components}
    assert {package for package in packages if package[0] != "pip"} == LOCKED
    unlicensed = {canonicalize_name(c["name"]) for c in components if not has_licence(c)}
    assert unlicensed == {"cuda-toolkit"}


def has_licence(component: dict[str, Any]) -> bool:
    """Whether a component declares a licence or includes its text."""
    return bool(component.get("licenses") or component.get("evidence", {}).get("licenses"))
