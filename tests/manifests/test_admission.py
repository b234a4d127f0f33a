"""Protects manifests, and what deploy makes of them, from KServe's webhooks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from grocer.config.deployment import DeployConfig
from serving.rollout.inference_service import Canary, Revision, apply_configuration
from tests.manifests.admission import refusals
from tests.manifests.kustomize import COMPONENTS, TARGETS, Object, build, one, with_component

OLD = Revision("s3://bundles/" + "a" * 64, "a" * 64, "grocer")
NEW = Revision("s3://bundles/" + "b" * 64, "b" * 64, "grocer", "cbbbbbbbb")
SHAPES = [(target, "") for target in TARGETS if target.startswith(("base/s", "overlays/"))]
SHAPES += [("base/serving", component) for component in COMPONENTS]


def merged(thing: Any, more: Any) -> Any:
    """What server-side apply makes of an object and of fields that nobody else owns."""
    if not isinstance(more, dict) or not isinstance(thing, dict):
        return deepcopy(more)
    return {**thing, **{key: merged(thing.get(key), value) for key, value in more.items()}}


@pytest.fixture(params=SHAPES, ids=lambda shape: "+".join(filter(None, shape)))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    target, component = request.param
    return with_component(target, component) if component else build(target)


def test_ours_are_let_in(objects: list[Object]) -> None:
    assert [fault for thing in objects for fault in refusals(thing)] == []


def test_so_is_each_thing_that_deploy_does_to_them(objects: list[Object]) -> None:
    deploy = DeployConfig(store="s3://bundles")
    made = one(objects, "InferenceService")
    first = merged(made, apply_configuration(deploy, OLD))
    tried = merged(made, apply_configuration(deploy, OLD, Canary(NEW, 20, min_replicas=1)))
    promoted = merged(made, apply_configuration(deploy, NEW))
    stopped = merged(made, apply_configuration(deploy, OLD, stopped=True))
    steps = [made, first, tried, promoted, stopped]
    for former, now in itertools.pairwise(steps):
        assert refusals(now, former) == []


Change = Callable[[Object], Any]


def service(change: Change) -> list[str]:
    """What is refused of a service with a canary and KEDA, once it was changed."""
    objects = with_component("overlays/kind", "keda")
    deploy = DeployConfig(store="s3://bundles")
    thing = merged(
        one(objects, "InferenceService"), apply_configuration(deploy, OLD, Canary(NEW, 20))
    )
    former = deepcopy(thing)
    assert refusals(thing) == []
    change(thing)
    return refusals(thing, former)


def spec(path: str, value: Any) -> Change:
    def change(thing: Object) -> None:
        *way, last = path.split(".")
        for key in way:
            thing = thing[int(key) if key.isdigit() else key]
        if value is None:
            del thing[last]
        else:
            thing[last] = value

    return change


def annotated(name: str, value: str) -> Change:
    return lambda thing: thing["metadata"]["annotations"].update(
        {f"serving.kserve.io/{name}": value}
    )


METRIC = "spec.predictor.autoScaling.metrics.0"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (spec("metadata.name", "Grocer"), "no name"),
        (spec("metadata.name", "1grocer"), "no name"),
        (annotated("autoscalerClass", "kpa"), "no autoscaler class"),
        (annotated("deploymentMode", "Knative"), "Standard mode alone"),
        (annotated("deploymentMode", "Knative"), "can't be changed"),
        (spec("spec.predictor.model.env.0.name", "PYTHONPATH"), "PYTHONPATH"),
        (spec("spec.predictor.model.name", "grocer"), "must be empty"),
        (spec("spec.predictor.minReplicas", 5), "above maxReplicas"),
        (spec("spec.predictor.minReplicas", -1), "fewer than none"),
        (spec("spec.predictor.containerConcurrency", -1), "negative"),
        (spec("spec.predictor.storageUris", [{"uri": "s3://b/a"}]), "exclude each other"),
        (spec("spec.predictor.name", "other"), "another model"),
        (spec("spec.predictor.scaleMetric", "cpu"), "no scaleMetric"),
        (spec(f"{METRIC}.type", "Pods"), "no Pods metrics"),
        (spec(f"{METRIC}.external", None), "needs external"),
        (spec(f"{METRIC}.external.metric.query", ""), "needs a query"),
        (spec(f"{METRIC}.external.target.value", None), "needs target.value"),
        (spec(f"{METRIC}.external.target.type", "AverageValue"), "target.averageValue"),
        (spec("spec.canary.0.predictor.name", None), "needs a name"),
        (spec("spec.canary.0.trafficPercent", 101), "no percentage"),
        (spec("spec.canary.0.predictor.model", None), "needs a model"),
        (spec("spec.canary.0.predictor.maxReplicas", 2), "can't set maxReplicas"),
        (spec("spec.canary.0.predictor.minReplicas", 2), "more pods than"),
        (lambda thing: thing["spec"]["canary"].append(thing["spec"]["canary"][0]), "one name"),
        (spec("spec.predictor.name", "cbbbbbbbb"), "stable predictor's name"),
        (
            lambda thing: thing["spec"]["canary"].append(
                {"trafficPercent": 90, "predictor": {"name": "x", "model": {}}}
            ),
            "more than all",
        ),
    ],
)
def test_what_kserve_refuses_is_found(change: Change, why: str) -> None:
    assert any(why in found for found in service(change)), service(change)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"scaleMetric": "rps"}, "can't scale by rps"),
        ({"scaleTarget": 101}, "no percentage"),
        ({"autoScaling": {"metrics": [{"type": "External"}]}}, "no External metrics"),
    ],
)
def test_so_is_what_it_refuses_of_an_hpa(more: Object, why: str) -> None:
    thing = one(build("base/serving"), "InferenceService")
    annotated("autoscalerClass", "hpa")(thing)
    assert refusals(thing) == []
    thing["spec"]["predictor"].update(more)
    assert any(why in found for found in refusals(thing))


def test_a_runtime_can_not_change_where_modules_come_from() -> None:
    runtime = one(build("base/serving"), "ServingRuntime")
    runtime["spec"]["containers"][0]["env"].append({"name": "PYTHONPATH", "value": "/tmp"})
    assert refusals(runtime) == ["PYTHONPATH is not allowed"]
