"""The Gateway that kind/up installs fits the component `canary`."""

import re
from pathlib import Path

from tests.manifests.kustomize import build, documents, get
from tests.manifests.schemas import schema_errors
from tests.manifests.test_policies import restricted_violations

ROOT = Path(__file__).parents[2]
OBJECTS = documents(ROOT / "kind/gateway.yaml")
GATEWAY = get(OBJECTS, "Deployment", "kserve-ingress-gateway")


def test_objects_match_their_schemas() -> None:
    builtin = [o for o in OBJECTS if not o["apiVersion"].startswith("gateway.networking.k8s.io/")]
    assert len(builtin) == 5
    assert [error for manifest in builtin for error in schema_errors(manifest)] == []


def test_proxy_is_admitted_to_the_predictor() -> None:
    """The label of its pods and their namespace are in a rule of the network policy."""
    pod = GATEWAY["spec"]["template"]
    assert restricted_violations(pod["spec"]) == set()
    policy = get(build("overlays/kind", "canary"), "NetworkPolicy", "grocer-gateway")
    labels = pod["metadata"]["labels"]
    namespace = {"kubernetes.io/metadata.name": GATEWAY["metadata"]["namespace"]}
    assert any(
        "matchExpressions" in peer["podSelector"]
        and all(
            expression["operator"] == "In" and found.get(expression["key"]) in expression["values"]
            for selector, found in (("namespaceSelector", namespace), ("podSelector", labels))
            for expression in peer[selector]["matchExpressions"]
        )
        for peer in policy["spec"]["ingress"][0]["from"]
    )


def test_versions_are_pinned() -> None:
    versions = (ROOT / "kind/versions").read_text()
    script = (ROOT / "kind/up").read_text()
    for name, version in (("GATEWAY_API", "[0-9a-f]{40}"), ("TRAEFIK", r"v\d")):
        assert re.search(f"\n{name}={version}", versions)
        assert f"${name}" in script
    (container,) = GATEWAY["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "docker.io/traefik:TRAEFIK_VERSION"
