"""Tests that alerts, dashboard and autoscaling query metrics that the predictor exports."""

import json
import re
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from grocer.config.deployment import DeployConfig, ServingConfig
from grocer.inference.drift import WINDOW
from grocer.inference.scores import Scores
from serving.predictor.metrics import Metrics
from serving.predictor.model import NAME
from serving.predictor.protocol.openapi import routes
from tests.fixtures.artifacts import make_bundle
from tests.manifests.kustomize import Object, build, get
from tests.manifests.pods import main_container, predictor

SERVING = build("base/serving", "monitoring")
TARGET_LABELS = {"namespace", "pod", "container"}
"""Labels that Prometheus adds to every series of a PodMonitor."""


def dashboard() -> Object:
    (text,) = get(SERVING, "ConfigMap", "grocer-dashboard")["data"].values()
    return json.loads(text)


def rules() -> list[Object]:
    (group,) = get(SERVING, "PrometheusRule")["spec"]["groups"]
    return group["rules"]


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    service = get(build("base/serving", "keda"), "InferenceService")
    for metric in service["spec"]["predictor"]["autoScaling"]["metrics"]:
        yield metric["external"]["metric"]["query"]


every_query = pytest.mark.parametrize("query", list(queries()))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    """Label names of each series that a predictor exports, by metric name."""
    registry = CollectorRegistry()
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    metrics = Metrics(bundle, ServingConfig(), registry)
    metrics.observe_request("predict", 200, 0.1)
    scores = Scores.flat(bundle.labels, np.eye(len(bundle.labels)))
    for number in range(WINDOW):  # more than a window of distinct names
        metrics.observe_predictions(
            [f"product {number} {label}" for label in bundle.labels], scores
        )
    labels: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@every_query
def test_query_uses_exported_metrics_and_labels(
    query: str, exported: Mapping[str, set[str]]
) -> None:
    """process_* metrics come from the Prometheus client on Linux and are not checked."""
    selectors = re.findall(r"([a-z_]+_[a-z_]+)\{(.*?)\}", query)
    assert selectors
    groups = {label.strip() for g in re.findall(r"by \((.*?)\)", query) for label in g.split(",")}
    for name, matchers in selectors:
        if name.startswith("process_"):
            continue
        labels = set(re.findall(r"(\w+)=~?\"", matchers)) | groups
        assert labels <= exported[name] | TARGET_LABELS
        assert f'namespace="{DeployConfig().namespace}"' in matchers
    assert set(re.findall(r"grocer_\w+", query)) <= exported.keys()


def test_queries_by_route_select_the_prediction_routes() -> None:
    selected = {match for query in queries() for match in re.findall(r'route=~"(.*?)"', query)}
    known = {name for _, name in routes(NAME, ui=True).values()}
    assert selected == {"predict|infer"}
    assert {"predict", "infer"} <= known


def test_alerts_have_severity_summary_and_description() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_pod_monitor_scrapes_the_metrics_route() -> None:
    monitor = get(SERVING, "PodMonitor")["spec"]
    assert monitor.keys() == {"selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == main_container(predictor(SERVING))["ports"][0]["name"]
    assert routes(NAME, ui=False)[endpoint["path"]] == ("GET", "metrics")


def test_dashboard_panels_are_valid() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    (variable,) = dashboard()["templating"]["list"]
    assert variable["name"] == "datasource"


def test_kind_overlay_needs_no_prometheus_operator() -> None:
    versions = {manifest["apiVersion"] for manifest in build("overlays/kind")}
    assert "monitoring.coreos.com/v1" not in versions
