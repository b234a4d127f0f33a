"""manifests/ as a test session installs them: namespaces, images and store of its own."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.manifests.kustomize import Object, build, containers, one

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Store:
    """An object store that pods and this machine reach by the same address."""

    endpoint: str
    address: str
    """`s3://bucket/prefix`, for bundles."""
    key: str
    secret: str
    region: str


@dataclass(frozen=True)
class Namespaces:
    """Where the predictor is, and where the pipeline's steps and the clients are."""

    serving: str
    steps: str

    def renamed(self, tree: Any) -> Any:
        """Objects of manifests/ with these instead of `grocer` and `kubeflow`."""
        names = {"grocer": self.serving, "kubeflow": self.steps}
        if isinstance(tree, list):
            return [self.renamed(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        made = {key: self.renamed(value) for key, value in tree.items()}
        for key in ("namespace", "kubernetes.io/metadata.name"):
            if made.get(key) in names:
                made[key] = names[made[key]]
        if made.get("kind") == "Namespace":
            made["metadata"]["name"] = names[made["metadata"]["name"]]
        return made


def ground(namespaces: Namespaces) -> list[Object]:
    """Namespaces, accounts, rights and policies: what any cluster takes."""
    objects = namespaces.renamed(build("base/serving") + build("base/pipeline"))
    steps = {
        "apiVersion": "v1",
        "kind": "Namespace",
        # Clients live beside the steps here; the label lets them through to the predictor.
        "metadata": {"name": namespaces.steps, "labels": RESTRICTED | {"grocer-client": "true"}},
    }
    ours = [o for o in objects if not o["apiVersion"].startswith("serving.kserve.io/")]
    return [steps, *sorted(ours, key=lambda o: o["kind"] != "Namespace")]


def served(overlay: str, namespaces: Namespaces, image: str) -> list[Object]:
    """What is KServe's in an overlay, with an image of the session's.

    It asks for little CPU and memory, as the nodes of a test are small.
    """
    objects = namespaces.renamed(build(overlay))
    for container in containers(objects):
        if container.get("image", "").startswith("grocer-serve"):
            container["image"] = image
            container["resources"]["requests"] |= {"cpu": "200m", "memory": "1Gi"}
    return [o for o in objects if o["apiVersion"].startswith("serving.kserve.io/")]


def place(thing: Object) -> str:
    """The namespace that an object is in, or is."""
    metadata = thing["metadata"]
    return str(metadata["name"] if thing["kind"] == "Namespace" else metadata.get("namespace", ""))


def access(namespace: str, store: Store, name: str = "grocer-s3") -> list[Object]:
    """How pods of a namespace reach the store: its place, its keys, and the way for a predictor."""
    metadata = {"name": name, "namespace": namespace}
    place = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": store.region}
    keys = {"AWS_ACCESS_KEY_ID": store.key, "AWS_SECRET_ACCESS_KEY": store.secret}
    made: list[Object] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": place},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys},
    ]
    host = urlsplit(store.endpoint).hostname or ""
    try:
        block = f"{ipaddress.ip_address(host)}/32"
    except ValueError:  # a name: a cloud's store, which the base's policy lets pods reach
        return made
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "grocer-test-store", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "grocer"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": block}}]}],
        },
    }
    return [*made, policy]


def t4_claim(namespaces: Namespaces) -> list[Object]:
    """The claim of the base's weights, bound to an empty volume of whichever node."""
    claim = one(build("weights"), "PersistentVolumeClaim", "grocer-base-weights")
    claim["metadata"]["namespace"] = namespaces.serving
    claim["spec"] |= {"storageClassName": "", "volumeName": namespaces.serving}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespaces.serving},
        "spec": {
            "capacity": claim["spec"]["resources"]["requests"],
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/var/tmp/grocer-test", "type": "DirectoryOrCreate"},
        },
    }
    return [volume, claim]
