"""What kustomize makes of manifests/, for a machine without it.

Only what our kustomizations use is known here; anything else raises. `test_kustomize` holds it to
what `kubectl kustomize` itself makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Object = dict[str, Any]
ROOT = Path(__file__).parents[2] / "manifests"
FIELDS = {
    "apiVersion",
    "kind",
    "resources",
    "components",
    "patches",
    "images",
    "labels",
    "configMapGenerator",
    "generatorOptions",
}
TARGETS = sorted(
    str(path.parent.relative_to(ROOT))
    for path in ROOT.rglob("kustomization.yaml")
    if "components" not in path.parts
)
COMPONENTS = sorted(path.parent.name for path in ROOT.glob("components/*/kustomization.yaml"))


def kustomization(folder: Path) -> Object:
    """A folder's kustomization.yaml.

    Raises:
        ValueError: it has a field that is not known here.
    """
    found = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(found) - FIELDS:
        raise ValueError(f"{folder}: teach tests/manifests/kustomize.py about {sorted(unknown)}")
    return found


def documents(path: Path) -> list[Object]:
    """The objects in a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@cache
def _built(folder: Path) -> tuple[Object, ...]:
    return tuple(_extended([], folder))


def build(name: str) -> list[Object]:
    """The objects of a target of `TARGETS`."""
    return deepcopy(list(_built(ROOT / name)))


def with_component(name: str, component: str) -> list[Object]:
    """The same with one more component."""
    return _extended(build(name), ROOT / "components" / component)


def _extended(objects: list[Object], folder: Path) -> list[Object]:
    """What is there already, and what a kustomization or a component adds and changes."""
    said = kustomization(folder)
    for name in said.get("resources", ()):
        path = (folder / name).resolve()
        objects += deepcopy(list(_built(path))) if path.is_dir() else documents(path)
    for name in said.get("components", ()):
        objects = _extended(objects, (folder / name).resolve())
    objects += [
        _config_map(one, said.get("generatorOptions", {}), folder)
        for one in said.get("configMapGenerator", ())
    ]
    for patch in said.get("patches", ()):
        objects = _patched(objects, patch, folder)
    for entry in said.get("labels", ()):
        assert set(entry) == {"pairs"}, entry
        for each in objects:
            each["metadata"].setdefault("labels", {}).update(entry["pairs"])
    for image in said.get("images", ()):
        for container in containers(objects):
            if _name(container.get("image", "")) == image["name"]:
                container["image"] = _pinned(image)
    return objects


def _config_map(said: Mapping[str, Any], options: Mapping[str, Any], folder: Path) -> Object:
    options = {**options, **said.get("options", {})}
    assert options["disableNameSuffixHash"], f"{said['name']}: what names it can't follow a hash"
    data = {Path(name).name: (folder / name).read_text() for name in said.get("files", ())}
    for name in said.get("envs", ()):
        lines = (folder / name).read_text().splitlines()
        data |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    labels = {"labels": dict(options["labels"])} if "labels" in options else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": said["name"], "namespace": said["namespace"], **labels},
        "data": data,
    }


def _patched(objects: list[Object], patch: Mapping[str, Any], folder: Path) -> list[Object]:
    target = patch["target"]
    assert set(target) == {"kind", "name"}, target
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
    operations = jsonpatch.JsonPatch(yaml.safe_load(text))
    hit = [target == {"kind": o["kind"], "name": o["metadata"]["name"]} for o in objects]
    assert any(hit), f"{folder}: the patch of {target} changes nothing"
    return [operations.apply(o) if h else o for o, h in zip(objects, hit, strict=True)]


def containers(tree: Any) -> Iterator[Object]:
    """Every container, whatever kind of object it is in."""
    if isinstance(tree, list):
        for each in tree:
            yield from containers(each)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("containers", "initContainers"):
                yield from value
            yield from containers(value)


def _name(image: str) -> str:
    return image.partition("@")[0].partition(":")[0]


def _pinned(image: Mapping[str, str]) -> str:
    name = image.get("newName", image["name"])
    return f"{name}@{image['digest']}" if "digest" in image else f"{name}:{image['newTag']}"


def one(objects: list[Object], kind: str, name: str = "grocer") -> Object:
    """The object of that kind and name; there must be just one."""
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found
