"""Tests that the component `scale-to-zero` reads the requests that the gateway counts."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from grocer.config.deployment import DeployConfig
from tests.manifests.kustomize import Object, build, get
from tests.manifests.test_gateway import GATEWAY

OBJECTS = build("base/serving", "scale-to-zero")
ROUTER = "httproute-grocer-{}-gw-kserve-kserve-ingress-gateway-ep-web-0-1a2b3c@kubernetesgateway"
"""Name that Traefik gives to the router of an HTTPRoute in the namespace grocer."""


def predictor() -> Object:
    return get(OBJECTS, "InferenceService")["spec"]["predictor"]


def gateway_query() -> str:
    return predictor()["autoScaling"]["metrics"][-1]["external"]["metric"]["query"]


def test_extends_the_component_keda() -> None:
    keda = get(build("base/serving", "keda"), "InferenceService")["spec"]["predictor"]
    zero = predictor()
    assert zero["minReplicas"] == 0
    metrics = zero["autoScaling"]["metrics"]
    assert metrics[:-1] == keda["autoScaling"]["metrics"]
    assert {metric["external"]["metric"]["serverAddress"] for metric in metrics} == {
        keda["autoScaling"]["metrics"][0]["external"]["metric"]["serverAddress"]
    }
    # The query is 0 or 1, so it never asks for more than one pod.
    assert gateway_query().endswith("> bool 0")
    assert metrics[-1]["external"]["target"]["value"] == "1"


def test_query_selects_the_routes_of_the_inference_service() -> None:
    (pattern,) = set(re.findall(r'router=~"(.*?)"', gateway_query()))
    name = DeployConfig().name
    assert all(re.fullmatch(pattern, ROUTER.format(n)) for n in (name, f"{name}-predictor"))
    assert not re.fullmatch(pattern, ROUTER.format("other"))


def test_gateway_exports_the_metrics_that_are_scraped() -> None:
    template = GATEWAY["spec"]["template"]
    (container,) = template["spec"]["containers"]
    options = dict(text.partition("=")[::2] for text in container["args"])
    assert options["--metrics.prometheus.addrouterslabels"] == "true"
    address = options[f"--entrypoints.{options['--metrics.prometheus.entrypoint']}.address"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    monitor = get(OBJECTS, "PodMonitor", "grocer-gateway")
    assert monitor["metadata"]["namespace"] == GATEWAY["metadata"]["namespace"]
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert address == f":{ports[endpoint['port']]}"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool not on PATH")
@pytest.mark.parametrize(
    ("series", "active"),
    [
        ({}, {"30m": 0}),
        # No request for long, then the first one: a new series, whose first value is already 1.
        ({"200": "5x240", "503": "_x79 1x160"}, {"19m": 0, "20m": 1, "29m": 1, "31m": 0}),
        # Requests that increase an existing series.
        ({"200": "5x79 6x160"}, {"19m": 0, "21m": 1, "29m": 1, "31m": 0}),
        # The gateway's container restarts, and its counter with it.
        ({"200": "5x79 1x160"}, {"19m": 0, "21m": 1, "31m": 0}),
    ],
)
def test_query_is_active_for_ten_minutes_after_a_request(
    series: dict[str, str], active: dict[str, int], tmp_path: Path
) -> None:
    labels = f'code="%s",router="{ROUTER.format("grocer")}"'
    other = f'traefik_router_requests_total{{code="200",router="{ROUTER.format("other")}"}}'
    inputs = {other: "0+1x240"} | {
        f"traefik_router_requests_total{{{labels % code}}}": values
        for code, values in series.items()
    }
    samples = {time: [{"labels": "{}", "value": value}] for time, value in active.items()}
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in inputs.items()],
        "promql_expr_test": [
            {"expr": gateway_query(), "eval_time": time, "exp_samples": expected}
            for time, expected in samples.items()
        ],
    }
    spec = {"rule_files": [], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "test.yaml").write_text(json.dumps(spec))
    command = ["promtool", "test", "rules", str(tmp_path / "test.yaml")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
