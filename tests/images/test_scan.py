"""`make scan`: no image passes that no scanner looked at.

Scanners stand in for real ones; they fail as trivy and grype do.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import astuple
from pathlib import Path

import pytest

from components.images import LOCK, Images

ROOT = Path(__file__).parents[2]
HOLES = {"trivy": 3, "grype": 2}
"""What each ends with where it finds something; 1 where it can't look."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with nothing on it but what the script itself needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "awk", "sh"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def install(path: Path, scanner: str, code: int = 0, at: str = "grocer-") -> None:
    """A scanner that prints what it was asked, and fails with `code` for images named `at`."""
    program = f'#!/bin/sh\necho "{scanner} $*"\ncase "$*" in *{at}*) exit {code} ;; esac\n'
    (path / scanner).write_text(program)
    (path / scanner).chmod(0o755)


def scan(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "images/scan"],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_scanner_nothing_passes(path: Path) -> None:
    done = scan(path)
    assert done.returncode == 2
    assert done.stderr == (
        "scan: nothing was looked at: install trivy or grype, which need the internet\n"
    )


@pytest.mark.parametrize("scanner", HOLES)
def test_it_looks_at_the_images_that_the_manifests_name(path: Path, scanner: str) -> None:
    install(path, scanner)
    done = scan(path)
    assert done.returncode == 0, done.stderr
    asked = [line for line in done.stdout.splitlines() if line.startswith(scanner)]
    for line, image in zip(asked, astuple(Images.read(LOCK)), strict=True):
        assert line.endswith(f" {image}")


@pytest.mark.parametrize("scanner", HOLES)
def test_holes_in_one_image_fail_after_all_were_looked_at(path: Path, scanner: str) -> None:
    install(path, scanner, HOLES[scanner], at="grocer-data")
    done = scan(path)
    assert done.returncode == 1
    assert done.stdout.count("scan: ") == 3
    assert "not looked at" not in done.stderr


@pytest.mark.parametrize("scanner", HOLES)
def test_a_scanner_that_cannot_look_is_no_pass(path: Path, scanner: str) -> None:
    install(path, scanner, 1, at="grocer-train")
    done = scan(path)
    assert done.returncode == 2
    train = Images.read(LOCK).train
    assert f"scan: {train} was not looked at; {scanner} says why above" in done.stderr


def test_not_looking_outweighs_holes(path: Path) -> None:
    install(path, "trivy", 1, at="grocer-data")
    (path / "trivy").write_text(
        '#!/bin/sh\ncase "$*" in *grocer-data*) exit 1 ;; *) exit 3 ;; esac\n'
    )
    assert scan(path).returncode == 2
