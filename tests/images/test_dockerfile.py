"""Policies of the images: what they stand on, who runs in them, and that only the lock decides."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "images" / "Dockerfile").read_text()
STAGES = {
    found[2]: found[0].partition("\n")[2]
    for found in re.findall(r"(^FROM (\S+) AS (\w+)$.*?)(?=^FROM |\Z)", TEXT, re.M | re.S)
}
FINAL = ("data", "train", "serve")


def test_there_is_a_target_for_each_image() -> None:
    assert set(FINAL) < set(STAGES)


def test_the_base_is_named_by_digest() -> None:
    """A tag can change under its name: give name:tag@sha256:…"""
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", TEXT, re.M)
    assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", base)
    assert {stage for _, stage, _ in re.findall(r"(^FROM (\S+) AS (\w+))", TEXT, re.M)} <= {
        "${PYTHON}",
        "scratch",
        *STAGES,
    }


def test_every_image_ends_as_a_user_without_rights() -> None:
    for stage in FINAL:
        assert re.findall(r"^USER (\S+)$", STAGES[stage], re.M)[-1] == "1000:1000"


def test_packages_come_by_the_lock_alone() -> None:
    """Nothing but images/install brings packages: it holds uv to requirements.lock."""
    for stage in (*FINAL, "model"):
        for command in re.findall(r"^RUN (.*?)(?<!\\)$", STAGES[stage], re.M | re.S):
            assert "/src/images/install" in command
            assert "pip install" not in command
    assert '--constraints "$lock"' in (ROOT / "images" / "install").read_text()


def test_no_file_of_the_project_names_a_registry_or_a_moving_tag() -> None:
    for name in ("Dockerfile", "install", "build"):
        text = (ROOT / "images" / name).read_text()
        assert ":latest" not in text
        assert not re.search(r"https?://", text)


def test_the_build_refuses_what_no_commit_names(tmp_path: Path) -> None:
    """In a repository of its own, with a docker that would succeed at anything."""
    for name in ("images/build", "manifests/components/images/kustomization.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    (tmp_path / "pyproject.toml").write_text('version = "9"\n')
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    digest = f"sha256:{'b' * 64}"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >>"$CALLS"\ncase "$2" in imagetools) echo {digest};; esac'
    )
    docker.chmod(0o755)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "CALLS": str(tmp_path.parent / "calls"),
            "HOME": str(tmp_path),
        }
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    run("git", "init", "-q")
    run("git", "add", ".")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")
    done = run("images/build", "r.io/g")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "manifests/components/images/kustomization.yaml").read_text()
    assert written.count(f"digest: {digest}") == 3
    assert "newName: r.io/g/grocer-serve" in written
    calls = (tmp_path.parent / "calls").read_text()
    revision = run("git", "rev-parse", "HEAD").stdout.strip()
    assert f"--tag r.io/g/grocer-train:{revision[:12]} --push" in calls
    assert "VERSION=9" in calls

    (tmp_path / "pyproject.toml").write_text('version = "10"\n')
    done = run("images/build", "r.io/g")
    assert done.returncode == 2
    assert done.stderr == (
        "images: the tree has changes that no commit names; commit them, as images are tagged "
        "by commit\n"
    )
