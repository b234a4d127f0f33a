"""Whether an object is what its kind may be: every field known, of its type, none missing.

Kubernetes' own kinds are held to the schemas that kubernetes-validate carries, KServe's to the
model types of the installed kserve package (their Kubernetes parts to the same schemas), Trainer's
to the models of kubeflow-trainer-api. Of the Prometheus operator there are no schemas in any
package that we install; `test_monitoring` asserts what its kinds must have.
"""

from __future__ import annotations

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
"""Of Kubernetes: the oldest that KServe runs on, and the newest that there are schemas for."""
_SIMPLE = {"str": str, "bool": bool, "int": int, "object": object}
_ELSEWHERE = {
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": (
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior"
    ),
    "ResourceQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "V1beta1MetricQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
}
"""Kubernetes types that KServe's package names but does not have."""


def faults(thing: dict[str, Any], version: str = VERSIONS[-1]) -> list[str]:
    """What is wrong with an object, each by its path; nothing is the good answer.

    Raises:
        LookupError: its kind has no schema here.
    """
    group = thing["apiVersion"].rpartition("/")[0]
    if group == "serving.kserve.io":
        model = _kserve_model(thing)
        return list(_walk(thing, model, thing["kind"], version))
    if group == "trainer.kubeflow.org":
        return _trainer(thing)
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        raise LookupError(f"no schema for {thing['apiVersion']} {thing['kind']}") from error
    except kubernetes_validate.ValidationError as error:
        return [f"{thing['kind']}.{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _kserve_model(thing: dict[str, Any]) -> type:
    version = thing["apiVersion"].rpartition("/")[2]
    name = f"{version[0].upper()}{version[1:]}{thing['kind']}"
    if not hasattr(kserve.models, name):
        raise LookupError(f"kserve has no {thing['apiVersion']} {thing['kind']}")
    return getattr(kserve.models, name)


def _walk(value: Any, model: type | str, path: str, version: str) -> Iterator[str]:
    """Faults of a value by a type as KServe's models name it: `list[V1Container]`, `str`, ..."""
    if isinstance(model, str):
        yield from _walk_named(value, model, path, version)
        return
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no {model.__name__}"
        return
    fields = {json: name for name, json in model.attribute_map.items()}
    for key in value.keys() - fields.keys():
        yield f"{path}.{key}: no such field"
    known = {fields[key]: value[key] for key in value if key in fields}
    for name, each in known.items():
        key = model.attribute_map[name]
        yield from _walk(each, model.openapi_types[name], f"{path}.{key}", version)
    try:
        model(**known)
    except ValueError as error:
        yield f"{path}: {error}"


def _walk_named(value: Any, name: str, path: str, version: str) -> Iterator[str]:
    if several := re.fullmatch(r"list\[(.+)\]", name):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for index, each in enumerate(value):
            yield from _walk(each, several[1], f"{path}[{index}]", version)
    elif several := re.fullmatch(r"dict\(str, (.+)\)", name):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no mapping"
            return
        for key, each in value.items():
            yield from _walk(each, several[1], f"{path}.{key}", version)
    elif name in _SIMPLE:
        if not isinstance(value, _SIMPLE[name]) or (name == "int" and isinstance(value, bool)):
            yield f"{path}: {value!r} is no {name}"
    elif hasattr(kserve.models, name):
        yield from _walk(value, getattr(kserve.models, name), path, version)
    else:
        definition = _ELSEWHERE.get(name, f"io.k8s.api.core.v1.{name.removeprefix('V1')}")
        for error in _kubernetes(definition, version).iter_errors(value):
            yield f"{path}.{'.'.join(map(str, error.path))}: {error.message}"


@cache
def _kubernetes(definition: str, version: str) -> Draft202012Validator:
    """A validator of a part of Kubernetes' own kinds."""
    file = f"kubernetes-json-schema/v{version}-local-strict/_definitions.json"
    schemas = Resource.from_contents(schema_contents(file, version))
    if definition not in schemas.contents["$defs"]:
        raise LookupError(f"Kubernetes {version} has no {definition}")
    address = schemas.id()
    return Draft202012Validator(
        {"$ref": f"{address}#/$defs/{definition}"},
        registry=Registry().with_resource(address, schemas),
    )


def _trainer(thing: dict[str, Any]) -> list[str]:
    model = getattr(trainer, f"TrainerV1alpha1{thing['kind']}", None)
    if model is None:
        raise LookupError(f"kubeflow-trainer-api has no {thing['kind']}")
    try:
        known = model.from_dict(thing).to_dict()
    except ValueError as error:
        return [f"{thing['kind']}: {error}"]
    # The models drop what they don't know.
    return [] if known == thing else [f"{thing['kind']}: has a field that there is not"]
