"""The scripts in kind/, with stand-ins for the tools that they call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_RECORD = '#!/bin/sh\necho "$(basename "$0") $*" >> calls\n'
_STUBS = {
    "docker": "echo 172.18.0.1\n",
    "git": "",
    "kind": 'case "$1" in version) . kind/versions; echo "${KIND#v}";; esac\n',
    "kubectl": 'case "$*" in *"-f -"* | *exec*) cat > /dev/null;; esac\n',
    "openssl": "",
}
DOWNLOADS = ("cert-manager.yaml", "kserve-crds.yaml", "kserve.yaml")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of kind/ whose tools record their arguments in the file `calls`."""
    shutil.copytree(ROOT / "kind", tmp_path / "kind")
    images = "echo grocer-data:1; echo grocer-serve:1"
    python = f'case "$2" in pytest) sleep 0.2; exit "${{TESTS:-0}}";; *) {images};; esac\n'
    stubs = {f"bin/{name}": body for name, body in _STUBS.items()} | {".venv/bin/python": python}
    for name, body in stubs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_RECORD + body)
        path.chmod(0o755)
    return tmp_path


def _run(checkout: Path, script: str, **environment: str) -> tuple[int, list[str]]:
    """Return the exit code of a script, and the calls of the tools."""
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [checkout / "kind" / script],
        cwd=checkout,
        env={"PATH": path, **environment},
        capture_output=True,
        timeout=60,
    )
    return done.returncode, (checkout / "calls").read_text().splitlines()


def _downloads(calls: list[str]) -> list[str]:
    files = [call.split(" -f ")[1] for call in calls if " -f " in call]
    return [file for file in files if file.endswith(DOWNLOADS)]


def test_up_downloads_the_released_manifests(checkout: Path) -> None:
    code, calls = _run(checkout, "up")
    assert code == 0
    files = _downloads(calls)
    assert [file.rpartition("/")[2] for file in files] == list(DOWNLOADS)
    assert all(file.startswith("https://github.com/") for file in files)
    (create,) = (call for call in calls if call.startswith("kind create"))
    assert "--image kindest/node:v" in create
    assert "kind load docker-image grocer-data:1 grocer-serve:1 --name grocer" in calls


def test_up_uses_local_manifests_and_another_node_image(checkout: Path) -> None:
    code, calls = _run(checkout, "up", MANIFESTS="/mirror", NODE_IMAGE="registry.example/node:1")
    assert code == 0
    assert _downloads(calls) == [f"/mirror/{name}" for name in DOWNLOADS]
    (create,) = (call for call in calls if call.startswith("kind create"))
    assert "--image registry.example/node:1 " in create


@pytest.mark.parametrize("code", ["0", "1"])
def test_test_returns_the_exit_code_of_pytest(checkout: Path, code: str) -> None:
    """kubectl port-forward has ended by then, as it does when its pod is replaced."""
    returned, calls = _run(checkout, "test", TESTS=code)
    assert returned == int(code)
    assert any("port-forward" in call for call in calls)
