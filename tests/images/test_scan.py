"""Tests of `make scan` with fake scanners that use the exit codes of trivy and grype."""

import shutil
import subprocess
from dataclasses import astuple
from pathlib import Path

import pytest

from components.images import LOCK, Images

ROOT = Path(__file__).parents[2]
FINDINGS = {"trivy": 3, "grype": 2}
"""Exit code of each scanner when it finds vulnerabilities; both use 1 for errors."""


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A directory for PATH that holds only what the script itself needs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("bash", "dirname", "awk", "sh"):
        (directory / name).symlink_to(shutil.which(name) or name)
    return directory


def install(bin_dir: Path, scanner: str, **exit_codes: int) -> None:
    """Install a fake scanner with an exit code for each image, such as `data=1`; default 0."""
    cases = " ".join(f"*grocer-{name}*) exit {code} ;;" for name, code in exit_codes.items())
    program = f'#!/bin/sh\necho "{scanner} $*"\ncase "$*" in {cases} esac\n'
    (bin_dir / scanner).write_text(program)
    (bin_dir / scanner).chmod(0o755)


def scan(bin_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(bin_dir)}
    return subprocess.run([ROOT / "images/scan"], env=environment, capture_output=True, text=True)


def test_scan_fails_without_a_scanner(bin_dir: Path) -> None:
    result = scan(bin_dir)
    assert result.returncode == 2
    assert "trivy or grype" in result.stderr


@pytest.mark.parametrize("scanner", FINDINGS)
def test_scan_covers_the_images_of_the_manifests(bin_dir: Path, scanner: str) -> None:
    install(bin_dir, scanner)
    result = scan(bin_dir)
    assert result.returncode == 0, result.stderr
    calls = [line for line in result.stdout.splitlines() if line.startswith(scanner)]
    for call, image in zip(calls, astuple(Images.read(LOCK)), strict=True):
        assert call.endswith(f" {image}")


@pytest.mark.parametrize("scanner", FINDINGS)
def test_findings_fail_after_all_images_are_scanned(bin_dir: Path, scanner: str) -> None:
    install(bin_dir, scanner, data=FINDINGS[scanner])
    result = scan(bin_dir)
    assert result.returncode == 1
    assert result.stdout.count("scan: ") == 3
    assert result.stderr == ""


@pytest.mark.parametrize("scanner", FINDINGS)
def test_scanner_error_is_not_a_pass(bin_dir: Path, scanner: str) -> None:
    install(bin_dir, scanner, train=1)
    result = scan(bin_dir)
    assert result.returncode == 2
    assert f"{Images.read(LOCK).train}: {scanner} failed" in result.stderr


def test_scanner_error_outweighs_findings(bin_dir: Path) -> None:
    install(bin_dir, "trivy", data=1, train=3, serve=3)
    assert scan(bin_dir).returncode == 2
