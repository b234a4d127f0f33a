"""Render the kustomizations in manifests/ on machines without kustomize.

Supports only the features that these kustomizations use and raises on any other field.
`test_kustomize` compares the result with `kubectl kustomize`.
"""

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
BUILDS = [(name, "") for name in TARGETS] + [("base/serving", name) for name in COMPONENTS]
"""Pairs of a target and an optional component (or an empty string) on top of it."""


def kustomization(directory: Path) -> Object:
    """Return the content of a directory's kustomization.yaml.

    Raises:
        ValueError: it has a field that this module does not support.
    """
    content = yaml.safe_load((directory / "kustomization.yaml").read_text())
    if unknown := set(content) - FIELDS:
        raise ValueError(f"{directory}: tests/manifests/kustomize.py lacks {sorted(unknown)}")
    return content


def documents(path: Path) -> list[Object]:
    """Return the objects in a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def build(target: str, *components: str) -> list[Object]:
    """Return the objects of one of `TARGETS`, with components of `COMPONENTS` applied."""
    objects = deepcopy(list(_build(ROOT / target)))
    for component in filter(None, components):
        objects = _extend(objects, ROOT / "components" / component)
    return objects


@cache
def _build(directory: Path) -> tuple[Object, ...]:
    return tuple(_extend([], directory))


def _extend(objects: list[Object], directory: Path) -> list[Object]:
    """Apply a kustomization or component to objects."""
    spec = kustomization(directory)
    for name in spec.get("resources", ()):
        path = (directory / name).resolve()
        objects += deepcopy(list(_build(path))) if path.is_dir() else documents(path)
    for name in spec.get("components", ()):
        objects = _extend(objects, (directory / name).resolve())
    for generator in spec.get("configMapGenerator", ()):
        objects.append(_config_map(generator, spec.get("generatorOptions", {}), directory))
    for patch in spec.get("patches", ()):
        objects = _patch(objects, patch, directory)
    for labels in spec.get("labels", ()):
        assert set(labels) == {"pairs"}, labels
        for manifest in objects:
            manifest["metadata"].setdefault("labels", {}).update(labels["pairs"])
    for image in spec.get("images", ()):
        for container in containers(objects):
            if _repository(container.get("image", "")) == image["name"]:
                container["image"] = _reference(image)
    return objects


def _config_map(spec: Mapping[str, Any], options: Mapping[str, Any], directory: Path) -> Object:
    options = {**options, **spec.get("options", {})}
    assert options["disableNameSuffixHash"], f"{spec['name']}: name suffixes are not supported"
    data = {Path(name).name: (directory / name).read_text() for name in spec.get("files", ())}
    for name in spec.get("envs", ()):
        lines = (directory / name).read_text().splitlines()
        data |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    labels = {"labels": dict(options["labels"])} if "labels" in options else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": spec["name"], "namespace": spec["namespace"], **labels},
        "data": data,
    }


def _patch(objects: list[Object], patch: Mapping[str, Any], directory: Path) -> list[Object]:
    target = patch["target"]
    assert set(target) == {"kind", "name"}, target
    text = patch["patch"] if "patch" in patch else (directory / patch["path"]).read_text()
    operations = jsonpatch.JsonPatch(yaml.safe_load(text))
    matches = [target == {"kind": o["kind"], "name": o["metadata"]["name"]} for o in objects]
    assert any(matches), f"{directory}: no object matches {target}"
    return [operations.apply(o) if m else o for o, m in zip(objects, matches, strict=True)]


def containers(tree: Any) -> Iterator[Object]:
    """Yield every container and init container in an object or a list of objects."""
    if isinstance(tree, list):
        for item in tree:
            yield from containers(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("containers", "initContainers"):
                yield from value
            yield from containers(value)


def _repository(image: str) -> str:
    return image.partition("@")[0].partition(":")[0]


def _reference(image: Mapping[str, str]) -> str:
    name = image.get("newName", image["name"])
    return f"{name}@{image['digest']}" if "digest" in image else f"{name}:{image['newTag']}"


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [manifest for manifest in objects if manifest["kind"] == kind]


def get(objects: list[Object], kind: str, name: str = "grocer") -> Object:
    """Return the only object of a kind and name."""
    (match,) = (o for o in of_kind(objects, kind) if o["metadata"]["name"] == name)
    return match


def set_field(manifest: Object, path: str, value: Any) -> None:
    """Set a field by its dotted path, or delete it if `value` is None."""
    *parents, name = path.split(".")
    for key in parents:
        manifest = manifest[int(key) if key.isdigit() else key]
    if value is None:
        del manifest[name]
    else:
        manifest[name] = value
