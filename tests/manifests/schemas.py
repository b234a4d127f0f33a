"""Strict schema validation of manifests: unknown fields, wrong types, missing required fields.

Schemas come from kubernetes-validate (Kubernetes' kinds), the models of the installed kserve
package (KServe's kinds) and kubeflow-trainer-api (Trainer's kinds). No installed package has the
schemas of the Prometheus operator; `test_monitoring` checks those kinds.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import kserve.models
import kubeflow_trainer_api.models as trainer
import kubernetes_validate
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

VERSIONS = ("1.32.0", kubernetes_validate.latest_version())
"""Kubernetes: the oldest version that KServe supports, and the latest available schemas."""
_SIMPLE = {"str": str, "bool": bool, "int": int, "object": object}
_KUBERNETES_NAMES = {
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": (
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior"
    ),
    "ResourceQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "V1beta1MetricQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
}
"""Kubernetes types that the kserve package refers to by other names."""


def schema_errors(manifest: dict[str, Any], version: str = VERSIONS[-1]) -> list[str]:
    """Return the schema violations of an object, each with its path.

    Raises:
        LookupError: no schema for its kind.
    """
    group, kind = manifest["apiVersion"].rpartition("/")[0], manifest["kind"]
    if group == "serving.kserve.io":
        return list(_walk(manifest, _kserve_model(manifest), kind, version))
    if group == "trainer.kubeflow.org":
        return _trainer(manifest)
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        raise LookupError(f"no schema for {manifest['apiVersion']} {kind}") from error
    except kubernetes_validate.ValidationError as error:
        return [f"{kind}.{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _kserve_model(manifest: dict[str, Any]) -> type:
    version = manifest["apiVersion"].rpartition("/")[2]
    name = f"{version[0].upper()}{version[1:]}{manifest['kind']}"
    if not hasattr(kserve.models, name):
        raise LookupError(f"kserve has no {manifest['apiVersion']} {manifest['kind']}")
    return getattr(kserve.models, name)


def _walk(value: Any, model: type | str, path: str, version: str) -> Iterator[str]:
    """Yield violations of a type name in KServe's models, such as `list[V1Container]` or `str`."""
    if isinstance(model, str):
        yield from _walk_named(value, model, path, version)
        return
    if not isinstance(value, dict):
        yield f"{path}: expected {model.__name__}"
        return
    fields = {json: name for name, json in model.attribute_map.items()}
    for key in value.keys() - fields.keys():
        yield f"{path}.{key}: unknown field"
    known = {fields[key]: value[key] for key in value if key in fields}
    for name, field in known.items():
        key = model.attribute_map[name]
        yield from _walk(field, model.openapi_types[name], f"{path}.{key}", version)
    try:
        model(**known)
    except ValueError as error:
        yield f"{path}: {error}"


def _walk_named(value: Any, name: str, path: str, version: str) -> Iterator[str]:
    if match := re.fullmatch(r"list\[(.+)\]", name):
        if not isinstance(value, list):
            yield f"{path}: expected a list"
            return
        for index, item in enumerate(value):
            yield from _walk(item, match[1], f"{path}[{index}]", version)
    elif match := re.fullmatch(r"dict\(str, (.+)\)", name):
        if not isinstance(value, dict):
            yield f"{path}: expected a mapping"
            return
        for key, item in value.items():
            yield from _walk(item, match[1], f"{path}.{key}", version)
    elif name in _SIMPLE:
        if not isinstance(value, _SIMPLE[name]) or (name == "int" and isinstance(value, bool)):
            yield f"{path}: expected {name}"
    elif hasattr(kserve.models, name):
        yield from _walk(value, getattr(kserve.models, name), path, version)
    else:
        definition = _KUBERNETES_NAMES.get(name, f"io.k8s.api.core.v1.{name.removeprefix('V1')}")
        for error in _kubernetes(definition, version).iter_errors(value):
            yield f"{path}.{'.'.join(map(str, error.path))}: {error.message}"


@cache
def _kubernetes(definition: str, version: str) -> Draft202012Validator:
    """Return a validator for one of Kubernetes' types."""
    file = f"kubernetes-json-schema/v{version}-local-strict/_definitions.json"
    schemas = Resource.from_contents(schema_contents(file, version))
    if definition not in schemas.contents["$defs"]:
        raise LookupError(f"Kubernetes {version} has no {definition}")
    address = schemas.id()
    return Draft202012Validator(
        {"$ref": f"{address}#/$defs/{definition}"},
        registry=Registry().with_resource(address, schemas),
    )


def _trainer(manifest: dict[str, Any]) -> list[str]:
    model = getattr(trainer, f"TrainerV1alpha1{manifest['kind']}", None)
    if model is None:
        raise LookupError(f"kubeflow-trainer-api has no {manifest['kind']}")
    try:
        known = model.from_dict(manifest).to_dict()
    except ValueError as error:
        return [f"{manifest['kind']}: {error}"]
    # The models drop unknown fields silently.
    return [] if known == manifest else [f"{manifest['kind']}: unknown field"]
