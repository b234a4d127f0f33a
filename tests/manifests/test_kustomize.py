"""Tests of the structure of manifests/, and of the renderer that the other tests use."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.manifests.kustomize import COMPONENTS, ROOT, TARGETS, Object, build, kustomization

requires_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl not on PATH")


def render(directory: Path) -> list[Object]:
    """Return what `kubectl kustomize` prints."""
    command = ["kubectl", "kustomize", str(directory)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def normalize(objects: list[Object]) -> list[str]:
    return sorted(json.dumps(manifest, sort_keys=True) for manifest in objects)


@requires_kubectl
@pytest.mark.parametrize("target", TARGETS)
def test_renderer_matches_kubectl(target: str) -> None:
    assert normalize(build(target)) == normalize(render(ROOT / target))


@requires_kubectl
@pytest.mark.parametrize("component", COMPONENTS)
def test_renderer_matches_kubectl_with_component(component: str, tmp_path: Path) -> None:
    def relative(name: str) -> str:
        return os.path.relpath(ROOT / name, tmp_path.resolve())

    spec = {
        "resources": [relative("base/serving")],
        "components": [relative(f"components/{component}")],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(spec))
    assert normalize(build("base/serving", component)) == normalize(render(tmp_path))


def referenced(directory: Path) -> Iterator[Path]:
    """Yield a directory's kustomization.yaml and the files it refers to."""
    spec = kustomization(directory)
    yield directory / "kustomization.yaml"
    names = list(spec.get("resources", ()))
    names += [patch["path"] for patch in spec.get("patches", ()) if "path" in patch]
    for generator in spec.get("configMapGenerator", ()):
        names += [*generator.get("envs", ()), *generator.get("files", ())]
    yield from (path for name in names if (path := directory / name).is_file())


def test_every_file_is_referenced() -> None:
    directories = [path.parent for path in ROOT.rglob("kustomization.yaml")]
    used = {path for directory in directories for path in referenced(directory)}
    assert {path for path in ROOT.rglob("*") if path.is_file()} == used


def test_only_documented_components_are_in_no_target() -> None:
    """docs/cluster.md documents these as optional."""
    used = {
        Path(name).name
        for target in TARGETS
        for name in kustomization(ROOT / target).get("components", ())
    }
    assert set(COMPONENTS) - used == {"canary", "keda", "scale-to-zero"}


@pytest.mark.parametrize("target", [name for name in TARGETS if name.startswith("overlays/")])
def test_overlays_only_patch(target: str) -> None:
    """Objects belong in a base or component."""
    spec = kustomization(ROOT / target)
    assert set(spec) <= {"apiVersion", "kind", "resources", "components", "patches"}
    assert all((ROOT / target / resource).is_dir() for resource in spec["resources"])
    assert {path.name for path in (ROOT / target).iterdir()} == {"kustomization.yaml"}


@pytest.mark.parametrize("target", TARGETS)
def test_objects_are_unique(target: str) -> None:
    keys = [
        (o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        for o in build(target)
    ]
    assert len(keys) == len(set(keys))
