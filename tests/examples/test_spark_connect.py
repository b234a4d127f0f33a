"""Tests of the example of a Spark Connect server for data.engine=spark."""

import re
from pathlib import Path

from grocer.ingest.spark import CONNECT_PORT
from tests.manifests.kustomize import Object, documents, get
from tests.manifests.schemas import schema_errors

ROOT = Path(__file__).parents[2]
OBJECTS = documents(ROOT / "examples" / "spark-connect.yaml")
SPEC = get(OBJECTS, "SparkConnect", "grocer-spark")["spec"]
PODS: list[Object] = [SPEC[part]["template"] for part in ("server", "executor")]


def test_objects_match_their_schemas() -> None:
    """No installed package has the schema of a SparkConnect, only that of its pods."""
    pods = [{"apiVersion": "v1", "kind": "Pod", **pod} for pod in PODS]
    others = [each for each in OBJECTS if each["kind"] != "SparkConnect"]
    assert [error for each in [*pods, *others] for error in schema_errors(each)] == []


def test_server_has_the_version_of_the_client() -> None:
    lock = (ROOT / "requirements-spark.lock").read_text()
    client = re.search(r"^pyspark(?:\[.*\])?==(\S+)", lock, re.M)
    assert client
    assert SPEC["sparkVersion"] == client[1]
    assert SPEC["image"].endswith(f":{client[1]}")


def test_server_and_executors_share_the_claim_at_one_path() -> None:
    claim = get(OBJECTS, "PersistentVolumeClaim", "grocer-orders")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in PODS:
        [volume], [container] = pod["spec"]["volumes"], pod["spec"]["containers"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/mnt/grocer"}]


def test_only_executors_and_clients_reach_the_server() -> None:
    policy = get(OBJECTS, "NetworkPolicy", "grocer-spark")["spec"]
    members = policy["podSelector"]["matchLabels"]
    assert all(members.items() <= pod["metadata"]["labels"].items() for pod in PODS)
    peers, clients = policy["ingress"]
    assert peers == {"from": [{"podSelector": {"matchLabels": members}}]}
    assert clients["ports"] == [{"port": CONNECT_PORT, "protocol": "TCP"}]
    [client] = clients["from"]
    assert client == {"podSelector": {"matchLabels": {"grocer-spark-client": "true"}}}
    documented = (ROOT / "docs" / "catalogue.md").read_text()
    assert 'grocer-spark-client: "true"' in documented
