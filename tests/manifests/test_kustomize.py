"""Protects what `kubectl apply -k` makes of manifests/: all is used, overlays only patch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.manifests.kustomize import (
    COMPONENTS,
    ROOT,
    TARGETS,
    Object,
    build,
    kustomization,
    with_component,
)

kubectl = pytest.mark.skipif(
    not shutil.which("kubectl"),
    reason="no kubectl to render with; tests/manifests/kustomize.py alone does",
)
OVERLAYS = [name for name in TARGETS if name.startswith("overlays/")]


def rendered(folder: Path) -> list[Object]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def ordered(objects: list[Object]) -> list[str]:
    return sorted(json.dumps(each, sort_keys=True) for each in objects)


@kubectl
@pytest.mark.parametrize("name", TARGETS)
def test_it_renders_and_these_tests_see_what_it_renders(name: str) -> None:
    assert ordered(rendered(ROOT / name)) == ordered(build(name))


@kubectl
@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_renders_over_the_bases(component: str, tmp_path: Path) -> None:
    def below(name: str) -> str:
        return os.path.relpath(ROOT / name, tmp_path.resolve())

    said = {"resources": [below("base/serving")], "components": [below(f"components/{component}")]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(said))
    assert ordered(rendered(tmp_path)) == ordered(with_component("base/serving", component))


def referenced(folder: Path) -> Iterator[Path]:
    """Every file that a folder's kustomization names, and itself."""
    said = kustomization(folder)
    yield folder / "kustomization.yaml"
    names = list(said.get("resources", ()))
    names += [patch["path"] for patch in said.get("patches", ()) if "path" in patch]
    for generator in said.get("configMapGenerator", ()):
        names += [*generator.get("envs", ()), *generator.get("files", ())]
    yield from (path for name in names if (path := folder / name).is_file())


def test_no_file_is_left_aside() -> None:
    folders = [path.parent for path in ROOT.rglob("kustomization.yaml")]
    used = {path for folder in folders for path in referenced(folder)}
    aside = {path for path in ROOT.rglob("*") if path.is_file()} - used
    assert not aside, "name them in a kustomization.yaml, or remove them"


def test_components_that_nothing_takes_are_options() -> None:
    """Which docs/cluster.md has to name."""
    taken = {
        Path(name).name
        for target in TARGETS
        for name in kustomization(ROOT / target).get("components", ())
    }
    assert set(COMPONENTS) - taken == {"canary", "keda"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_only_patch(name: str) -> None:
    """An object of an overlay's own would be a second place to look for it."""
    said = kustomization(ROOT / name)
    assert set(said) <= {"apiVersion", "kind", "resources", "components", "patches"}
    assert all((ROOT / name / resource).is_dir() for resource in said["resources"])
    assert {path.name for path in (ROOT / name).iterdir()} == {"kustomization.yaml"}


@pytest.mark.parametrize("name", TARGETS)
def test_no_object_is_there_twice(name: str) -> None:
    keys = [
        (o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        for o in build(name)
    ]
    assert len(keys) == len(set(keys))
