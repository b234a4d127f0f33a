"""`make images`: images are named by commit, then by digest, in the one file that names them.

A repository of its own, and a docker that would succeed at anything and writes down its calls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from components.images import Images

ROOT = Path(__file__).parents[2]
LOCK = Path("manifests/components/images/kustomization.yaml")
DIGEST = f"sha256:{'b' * 64}"
METADATA = f"""{{
  "buildx.build.ref": "default/default/bkfg0m3vbpm2qkjkpu8cvba8n",
  "containerimage.config.digest": "sha256:{"c" * 64}",
  "containerimage.digest": "{DIGEST}"
}}"""
DOCKER = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in
*"$FAILING"*) echo "no space left" >&2; exit 1 ;;
esac
while [ $# -gt 0 ] && [ "$1" != --metadata-file ]; do shift; done
[ $# = 0 ] || cat "$METADATA" >"$2"
"""


class Checkout:
    def __init__(self, root: Path) -> None:
        self.root = root / "grocer"
        self.calls = root / "calls"
        self.environment = os.environ | {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "FAILING": "nothing",
            "METADATA": str(root / "metadata"),
            "PIP_FIND_LINKS": "",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for name in ("images/build", str(LOCK)):
            (self.root / name).parent.mkdir(parents=True)
            shutil.copy(ROOT / name, self.root / name)
        (self.root / "pyproject.toml").write_text('version = "9"\n')
        (root / "metadata").write_text(METADATA)
        (root / "bin").mkdir()
        (root / "bin" / "docker").write_text(DOCKER)
        (root / "bin" / "docker").chmod(0o755)
        self.git("init", "-q")
        self.commit()

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", *identity, *words],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "-qm", "change")

    def build(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["images/build", *words],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def builds(self) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if "buildx build" in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_pushed_images_are_known_by_digest(checkout: Checkout) -> None:
    done = checkout.build("registry:5000/g")
    assert done.returncode == 0, done.stderr
    tag = checkout.git("rev-parse", "HEAD")[:12]
    for target, call in zip(("data", "train", "serve"), checkout.builds(), strict=True):
        assert (
            f"--target {target} --tag registry:5000/g/grocer-{target}:{tag} --metadata-file "
            in call
        )
        assert call.endswith(" --push .")
    read = Images.read(checkout.root / LOCK)
    assert read == Images(
        data=f"registry:5000/g/grocer-data@{DIGEST}",
        train=f"registry:5000/g/grocer-train@{DIGEST}",
        serve=f"registry:5000/g/grocer-serve@{DIGEST}",
    )


def test_without_a_registry_they_stay_here_by_tag(checkout: Checkout) -> None:
    assert checkout.build().returncode == 0
    tag = checkout.git("rev-parse", "HEAD")[:12]
    assert all(f":{tag} " in call and call.endswith(" --load .") for call in checkout.builds())
    assert Images.read(checkout.root / LOCK).serve == f"grocer-serve:{tag}"


def test_the_file_that_it_writes_is_no_change_of_the_tree(checkout: Checkout) -> None:
    """And what stands before its images stays."""
    head = (ROOT / LOCK).read_text().partition("images:\n")[0]
    assert checkout.build("registry:5000/g").returncode == 0
    assert checkout.git("status", "--porcelain") == f"M {LOCK}"
    assert checkout.build().returncode == 0
    assert (checkout.root / LOCK).read_text().startswith(head)


def test_labels_say_which_commit_and_leave_passwords_out(checkout: Checkout) -> None:
    checkout.git("remote", "add", "origin", "https://me:secret@git.example/grocer.git")
    assert checkout.build().returncode == 0
    label = "--label org.opencontainers.image"
    for call in checkout.builds():
        assert f"{label}.version=9 {label}.revision={checkout.git('rev-parse', 'HEAD')} " in call
        assert f"{label}.source=https://git.example/grocer.git " in call
        assert "secret" not in call


def test_base_wheels_and_options_are_passed_on(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    more = {"PIP_FIND_LINKS": str(tmp_path / "wheels"), "BUILD_OPTIONS": "--network host --pull"}
    assert checkout.build(PYTHON_IMAGE="mine:1", **more).returncode == 0
    assert all("--build-context" not in call for call in checkout.builds())
    (tmp_path / "wheels" / "torch.whl").touch()
    assert checkout.build(PYTHON_IMAGE="mine:1", **more).returncode == 0
    for call in checkout.builds()[3:]:
        assert "--build-arg PYTHON=mine:1" in call
        assert f"--build-context wheels={tmp_path / 'wheels'} " in call
        assert "--network host --pull" in call


def test_what_no_commit_names_is_refused(checkout: Checkout) -> None:
    (checkout.root / "new.py").touch()
    done = checkout.build("registry:5000/g")
    assert done.returncode == 2
    assert done.stderr == (
        "images: the tree has changes that no commit names; commit them, as images are tagged "
        "by commit\n"
    )
    assert not checkout.builds()


@pytest.mark.parametrize(
    "registry", ["https://registry/g", "registry/g/", "Registry/G", "registry/g@sha256:1", "a b"]
)
def test_what_is_no_registry_is_refused(checkout: Checkout, registry: str) -> None:
    done = checkout.build(registry)
    assert done.returncode == 2
    assert done.stderr == (
        f"images: REGISTRY={registry} names no place for images; give host[:port]/path in lower "
        "case\n"
    )


def test_a_missing_buildx_is_told(checkout: Checkout) -> None:
    done = checkout.build(FAILING="buildx version")
    assert done.returncode == 2
    assert done.stderr == "images: docker with its buildx plugin is needed; install both\n"


def test_a_push_without_a_digest_is_told(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text("{}")
    done = checkout.build("registry:5000/g")
    assert done.returncode == 2
    assert "buildx told no digest of registry:5000/g/grocer-data:" in done.stderr
    assert checkout.git("status", "--porcelain") == ""


def test_a_failed_build_leaves_the_file_as_it_was(checkout: Checkout) -> None:
    before = (checkout.root / LOCK).read_text()
    done = checkout.build("registry:5000/g", FAILING="--target serve")
    assert done.returncode == 1
    assert done.stderr == "no space left\n"
    assert (checkout.root / LOCK).read_text() == before
