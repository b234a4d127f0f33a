"""Policies for all manifests: pinned images, resources, security contexts, network, RBAC."""

from typing import Any

import pytest

from components.images import Images
from tests.manifests.kustomize import BUILDS, TARGETS, Object, build, containers, of_kind
from tests.manifests.pods import main_container, pods, predictor

PODS = [
    pytest.param(name, pod, id="+".join(filter(None, (target, component, name))))
    for target, component in BUILDS
    for name, pod in pods(build(target, component))
]
every_pod = pytest.mark.parametrize(("name", "pod"), PODS)
every_predictor = pytest.mark.parametrize(
    ("name", "pod"), [pod for pod in PODS if pod.values[0] == "predictor"]
)
every_target = pytest.mark.parametrize("target", TARGETS)


def test_all_kinds_of_pods_are_covered() -> None:
    assert {pod.values[0] for pod in PODS} == {"predictor", "grocer", "grocer-base-weights"}


@every_pod
def test_images_are_pinned(name: str, pod: Object) -> None:
    """Set a tag or a digest in manifests/components/images."""
    for container in pod["containers"]:
        assert Images(serve=container["image"])


@every_pod
def test_requests_and_limits_are_set(name: str, pod: Object) -> None:
    if name == "grocer":
        return  # Kubeflow Trainer sets them from the TrainJob
    for container in containers(pod):
        resources = container["resources"]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= resources[kind].keys(), container["name"]
        gpus = {kind: resources[kind].get("nvidia.com/gpu") for kind in ("requests", "limits")}
        assert gpus["requests"] == gpus["limits"]


def restricted_violations(pod: Object) -> set[str]:
    """Return what a pod violates of the restricted profile of the Pod Security Standards."""
    violations = {key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)}
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    allowed |= {"persistentVolumeClaim", "name"}
    for volume in pod.get("volumes", ()):
        violations |= {f"volume {key}" for key in volume.keys() - allowed}
    for container in containers(pod):
        own = container.get("securityContext", {})
        effective = {**pod.get("securityContext", {}), **own}
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            violations.add("root")
        if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            violations.add("seccomp")
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            violations.add("privileges")
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or capabilities.get("add"):
            violations.add("capabilities")
        if any(port.get("hostPort") for port in container.get("ports", ())):
            violations.add("host port")
    return violations


@every_pod
def test_pod_passes_the_restricted_profile(name: str, pod: Object) -> None:
    assert restricted_violations(pod) == set()


@every_pod
def test_root_file_system_is_read_only(name: str, pod: Object) -> None:
    """Writable paths must be volumes."""
    for container in containers(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounts
        assert set(mounts.values()) <= {volume["name"] for volume in pod["volumes"]}


@every_pod
def test_pod_runs_as_user_1000_without_api_token(name: str, pod: Object) -> None:
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("pod_fields", "container_fields", "violations"),
    [
        ({"hostNetwork": True}, {}, {"hostNetwork"}),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, {}, {"volume hostPath"}),
        ({"securityContext": {"runAsNonRoot": True}}, {"seccompProfile": None}, {"seccomp"}),
        ({"initContainers": [{"name": "storage-initializer"}]}, {}, {"privileges", "capabilities"}),
        ({}, {"runAsUser": 0, "privileged": True}, {"root", "privileges"}),
        ({}, {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, {"capabilities"}),
    ],
)
def test_restricted_profile_violation_is_detected(
    pod_fields: dict[str, Any], container_fields: dict[str, Any], violations: set[str]
) -> None:
    pod = predictor(build("base/serving")) | pod_fields
    context = pod["containers"][0]["securityContext"]
    context |= container_fields
    if container_fields.get("seccompProfile", ...) is None:
        del context["seccompProfile"]
    assert violations <= restricted_violations(pod)


def test_host_port_is_detected() -> None:
    pod = predictor(build("base/serving"))
    pod["containers"][0]["ports"][0]["hostPort"] = 8080
    assert restricted_violations(pod) == {"host port"}


@every_predictor
def test_predictor_has_http_probes(name: str, pod: Object) -> None:
    """KServe's defaults are a TCP readiness probe and no liveness probe."""
    container = main_container(pod)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
        assert container[probe]["timeoutSeconds"] <= container[probe]["periodSeconds"]


@every_target
def test_namespace_enforces_restricted_profile_and_denies_traffic(target: str) -> None:
    objects = build(target)
    default_deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for namespace in of_kind(objects, "Namespace"):
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        policies = [o for o in of_kind(objects, "NetworkPolicy") if o["spec"] == default_deny]
        denied = [policy["metadata"]["namespace"] for policy in policies]
        assert denied == [namespace["metadata"]["name"]]


@every_target
def test_network_policies_name_peers_and_ports(target: str) -> None:
    for policy in of_kind(build(target), "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
        for rule in rules:
            assert rule["ports"]
            for peer in rule.get("from", rule.get("to")):
                assert peer
                assert peer.get("namespaceSelector") != {}
                if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    # Private addresses, and link-local ones where nodes serve credentials.
                    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(peer["ipBlock"]["except"])


@every_target
def test_roles_have_no_wildcards_or_dangerous_verbs(target: str) -> None:
    """Secrets and ConfigMaps must be named."""
    for role in of_kind(build(target), "Role"):
        for rule in role["rules"]:
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            dangerous = {"delete", "deletecollection", "escalate", "bind"}
            if rule["resources"] == ["trainjobs"]:
                dangerous.remove("delete")  # the train step's own
            assert not dangerous & set(rule["verbs"])
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["resourceNames"]
                assert rule["verbs"] == ["get"]
    assert not [o for o in build(target) if o["kind"].startswith("ClusterRole")]


@every_target
def test_no_secret_is_committed(target: str) -> None:
    """Create Secrets on the cluster and refer to them by name. Kubernetes fills in tokens."""
    secrets = of_kind(build(target), "Secret")
    assert not any("data" in secret or "stringData" in secret for secret in secrets)
    assert {secret["type"] for secret in secrets} <= {"kubernetes.io/service-account-token"}
