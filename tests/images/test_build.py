"""Tests of `make images` in a temporary git repository, with a fake docker that logs its calls."""

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
    """A git repository with images/build and the file that it writes."""

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

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        result = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip()

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "-qm", "change")

    def build(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["images/build", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
        )

    def builds(self) -> list[str]:
        """Return the `docker buildx build` command lines so far."""
        return [line for line in self.calls.read_text().splitlines() if "buildx build" in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_pushed_images_are_referenced_by_digest(checkout: Checkout) -> None:
    result = checkout.build("registry:5000/g")
    assert result.returncode == 0, result.stderr
    tag = checkout.git("rev-parse", "HEAD")[:12]
    for target, command in zip(("data", "train", "serve"), checkout.builds(), strict=True):
        assert f" --target {target} --tag registry:5000/g/grocer-{target}:{tag} " in command
        assert command.endswith(" --push .")
    assert Images.read(checkout.root / LOCK) == Images(
        data=f"registry:5000/g/grocer-data@{DIGEST}",
        train=f"registry:5000/g/grocer-train@{DIGEST}",
        serve=f"registry:5000/g/grocer-serve@{DIGEST}",
    )


def test_local_images_are_referenced_by_tag(checkout: Checkout) -> None:
    assert checkout.build().returncode == 0
    tag = checkout.git("rev-parse", "HEAD")[:12]
    for command in checkout.builds():
        assert f":{tag} " in command
        assert command.endswith(" --load .")
    assert Images.read(checkout.root / LOCK).serve == f"grocer-serve:{tag}"


def test_written_references_do_not_block_the_next_build(checkout: Checkout) -> None:
    """They are the only file changed, and the lines before `images:` are kept."""
    head = (ROOT / LOCK).read_text().partition("images:\n")[0]
    assert checkout.build("registry:5000/g").returncode == 0
    assert checkout.git("status", "--porcelain") == f"M {LOCK}"
    assert checkout.build().returncode == 0
    assert (checkout.root / LOCK).read_text().startswith(head)


def test_labels_name_the_commit_but_no_credentials(checkout: Checkout) -> None:
    checkout.git("remote", "add", "origin", "https://me:secret@git.example/grocer.git")
    assert checkout.build().returncode == 0
    label = "--label org.opencontainers.image"
    for command in checkout.builds():
        assert f"{label}.version=9 {label}.revision={checkout.git('rev-parse', 'HEAD')} " in command
        assert f"--build-arg COMMIT={checkout.git('rev-parse', 'HEAD')} " in command
        assert f"{label}.source=https://git.example/grocer.git " in command
        assert "secret" not in command


def test_environment_variables_become_build_options(checkout: Checkout, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    environment = {
        "PYTHON_IMAGE": "mine:1",
        "PIP_FIND_LINKS": str(wheels),
        "BUILD_OPTIONS": "--network host --pull",
    }
    assert checkout.build(**environment).returncode == 0
    assert all("--build-context" not in command for command in checkout.builds())
    (wheels / "torch.whl").touch()
    assert checkout.build(**environment).returncode == 0
    for command in checkout.builds()[3:]:
        assert "--build-arg PYTHON=mine:1" in command
        assert f"--build-context wheels={wheels} " in command
        assert "--network host --pull" in command


def require_error(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2
    assert message in result.stderr


def test_uncommitted_changes_are_rejected(checkout: Checkout) -> None:
    (checkout.root / "new.py").touch()
    require_error(checkout.build("registry:5000/g"), "uncommitted changes")
    assert not checkout.builds()


@pytest.mark.parametrize(
    "registry", ["https://registry/g", "registry/g/", "Registry/G", "registry/g@sha256:1", "a b"]
)
def test_invalid_registry_is_rejected(checkout: Checkout, registry: str) -> None:
    require_error(checkout.build(registry), f"REGISTRY={registry}: invalid")


def test_missing_buildx_is_reported(checkout: Checkout) -> None:
    require_error(checkout.build(FAILING="buildx version"), "buildx not found")


def test_push_without_a_digest_is_reported(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "metadata").write_text("{}")
    result = checkout.build("registry:5000/g")
    require_error(result, "no digest for registry:5000/g/grocer-data:")
    assert checkout.git("status", "--porcelain") == ""


def test_failed_build_keeps_the_previous_references(checkout: Checkout) -> None:
    before = (checkout.root / LOCK).read_text()
    result = checkout.build("registry:5000/g", FAILING="--target serve")
    assert result.returncode == 1
    assert result.stderr == "no space left\n"
    assert (checkout.root / LOCK).read_text() == before
