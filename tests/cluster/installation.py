"""The objects of manifests/, adapted to the namespaces, image and store of a test session."""

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.manifests.kustomize import Object, build, containers, get

_FAULTY = (Path(__file__).parent / "inside/faulty_predictor.py").read_text()
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Store:
    """An object store that pods and this machine reach at the same endpoint."""

    endpoint: str
    uri: str
    """`s3://bucket/prefix` for bundles."""
    key: str
    secret: str
    region: str


@dataclass(frozen=True)
class Namespaces:
    """The namespaces of the predictor, and of the pipeline's steps and the clients."""

    serving: str
    steps: str

    def rename(self, tree: Any) -> Any:
        """Return objects of manifests/ with these namespaces instead of `grocer` and `kubeflow`."""
        names = {"grocer": self.serving, "kubeflow": self.steps}
        if isinstance(tree, list):
            return [self.rename(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        renamed = {key: self.rename(value) for key, value in tree.items()}
        for key in ("namespace", "kubernetes.io/metadata.name"):
            if renamed.get(key) in names:
                renamed[key] = names[renamed[key]]
        if renamed.get("kind") == "Namespace":
            renamed["metadata"]["name"] = names[renamed["metadata"]["name"]]
        if str(renamed.get("kind")).startswith("ValidatingAdmissionPolicy"):
            self._rename_policy(renamed)
        return renamed

    def _rename_policy(self, policy: Object) -> None:
        """Give a cluster-scoped policy, or its binding, a name of its own and its account."""
        policy["metadata"]["name"] = self.policy
        if "policyName" in policy["spec"]:
            policy["spec"]["policyName"] = self.policy
        for condition in policy["spec"].get("matchConditions", ()):
            account = condition["expression"].replace(":kubeflow:", f":{self.steps}:")
            condition["expression"] = account

    @property
    def policy(self) -> str:
        """Name of the admission policy of the account grocer-deploy."""
        return f"{self.serving}-deploy"


def namespace_of(manifest: Object) -> str:
    """Return an object's namespace; for a Namespace, its name."""
    metadata = manifest["metadata"]
    if manifest["kind"] == "Namespace":
        return str(metadata["name"])
    return str(metadata.get("namespace", ""))


def base_objects(namespaces: Namespaces) -> list[Object]:
    """Return namespaces, accounts, RBAC and network policies, which need no CRD."""
    objects = namespaces.rename(build("base/serving") + build("base/pipeline"))
    steps = {
        "apiVersion": "v1",
        "kind": "Namespace",
        # The test client runs in this namespace; the label admits it to the predictor.
        "metadata": {"name": namespaces.steps, "labels": RESTRICTED | {"grocer-client": "true"}},
    }
    builtin = [o for o in objects if not o["apiVersion"].startswith("serving.kserve.io/")]
    return [steps, *sorted(builtin, key=lambda o: o["kind"] != "Namespace")]


def kserve_objects(
    overlay: str, namespaces: Namespaces, image: str, *components: str
) -> list[Object]:
    """Return the KServe objects of an overlay, with components and another image.

    Resource requests are reduced, because test nodes are small.
    """
    objects = namespaces.rename(build(overlay, *components))
    for container in containers(objects):
        if container.get("image", "").startswith("grocer-serve"):
            container["image"] = image
            container["resources"]["requests"] |= {"cpu": "200m", "memory": "1Gi"}
    return [o for o in objects if o["apiVersion"].startswith("serving.kserve.io/")]


def faulty(objects: list[Object], faults: Mapping[str, str]) -> list[Object]:
    """Let the predictor of some bundles, by digest, be faulty as in inside/faulty_predictor.py."""
    runtime = get(objects, "ServingRuntime")
    runtime["spec"]["containers"][0]["command"] = [
        "python",
        "-c",
        _FAULTY,
        json.dumps(dict(faults)),
    ]
    return objects


def trust(namespace: str, public_key: Path) -> Object:
    """Return the ConfigMap with the key that the predictor trusts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "grocer-trust", "namespace": namespace},
        "data": {public_key.name: public_key.read_text()},
    }


def store_access(namespace: str, store: Store, name: str = "grocer-s3") -> list[Object]:
    """Return ConfigMaps and a Secret for the store, and a policy if it has a private address."""
    metadata = {"name": name, "namespace": namespace}
    config = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": store.region}
    keys = {"AWS_ACCESS_KEY_ID": store.key, "AWS_SECRET_ACCESS_KEY": store.secret}
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys},
    ]
    host = urlsplit(store.endpoint).hostname or ""
    try:
        cidr = f"{ipaddress.ip_address(host)}/32"
    except ValueError:  # a host name of a cloud store, which the base policy allows
        return objects
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "grocer-test-store", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "grocer"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": cidr}}]}],
        },
    }
    return [*objects, policy]


def empty_weights_volume(namespaces: Namespaces) -> list[Object]:
    """Return the claim for the base model, bound to an empty volume on any node."""
    claim = get(build("weights"), "PersistentVolumeClaim", "grocer-base-weights")
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
