"""Protects alerts and the dashboard: each asks for metrics that the predictor has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from grocer.config.deployment import DeployConfig
from serving.predictor.metrics import Metrics
from serving.predictor.middleware import routes
from serving.predictor.model import NAME
from tests.fixtures.artifacts import make_bundle
from tests.manifests.kustomize import Object, build, one, with_component
from tests.manifests.pods import main_container, predictor

SERVING = with_component("base/serving", "monitoring")
ON_A_TARGET = {"namespace", "pod", "container"}
"""Labels that Prometheus gives each series of a PodMonitor."""


def dashboard() -> Object:
    (text,) = one(SERVING, "ConfigMap", "grocer-dashboard")["data"].values()
    return json.loads(text)


def rules() -> list[Object]:
    (group,) = one(SERVING, "PrometheusRule")["spec"]["groups"]
    return group["rules"]


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    service = one(with_component("base/serving", "keda"), "InferenceService")
    for metric in service["spec"]["predictor"]["autoScaling"]["metrics"]:
        yield metric["external"]["metric"]["query"]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    """Labels of each series that a predictor shows, by its name."""
    registry = CollectorRegistry()
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    shown = Metrics(bundle, low_confidence=0.5, window=10, registry=registry)
    shown.requested("predict", 200, 0.1)
    shown.answered(np.eye(len(bundle.labels)))
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("query", list(queries()))
def test_metrics_and_labels_are_there(query: str, metrics: Mapping[str, set[str]]) -> None:
    """The rest, process_*, comes from the Prometheus client on Linux."""
    selectors = re.findall(r"([a-z_]+_[a-z_]+)\{(.*?)\}", query)
    assert selectors
    for name, labels in selectors:
        if name.startswith("process_"):
            continue
        assert name in metrics
        asked = set(re.findall(r"(\w+)=~?\"", labels))
        asked |= {
            label.strip()
            for inner in re.findall(r"by \((.*?)\)", query)
            for label in inner.split(",")
        }
        assert asked <= metrics[name] | ON_A_TARGET
        assert f'namespace="{DeployConfig().namespace}"' in labels
    assert set(re.findall(r"grocer_\w+", query)) <= metrics.keys()


@pytest.mark.parametrize("query", list(queries()))
def test_routes_are_there(query: str) -> None:
    known = {name for _, name in routes(NAME, ui=True).values()}
    for found in re.findall(r'route=~"(.*?)"', query):
        assert set(found.split("|")) <= known


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_pods_are_asked_where_they_answer() -> None:
    monitor = one(SERVING, "PodMonitor")["spec"]
    assert monitor.keys() == {"selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == main_container(predictor(SERVING))["ports"][0]["name"]
    assert routes(NAME, ui=False)[endpoint["path"]] == ("GET", "metrics")


def test_the_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    (variable,) = dashboard()["templating"]["list"]
    assert variable["name"] == "datasource"


def test_only_overlays_with_an_operator_ask_for_it() -> None:
    kinds = {thing["apiVersion"] for thing in build("overlays/kind")}
    assert "monitoring.coreos.com/v1" not in kinds
