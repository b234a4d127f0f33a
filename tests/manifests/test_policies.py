"""Protects what every pod must be: fixed, bounded, watched, with no more rights than it needs."""

from __future__ import annotations

from typing import Any

import pytest

from components.images import Images
from grocer.errors import ConfigError
from tests.manifests.kustomize import COMPONENTS, TARGETS, Object, build, containers, with_component
from tests.manifests.pods import main_container, pods, predictor

BUILDS = [(target, "") for target in TARGETS]
BUILDS += [("base/serving", component) for component in COMPONENTS]
ALL = [
    pytest.param(name, pod, id="+".join(filter(None, (target, component, name))))
    for target, component in BUILDS
    for name, pod in pods(with_component(target, component) if component else build(target))
]
every_pod = pytest.mark.parametrize(("name", "pod"), ALL)


def test_there_are_pods_to_look_at() -> None:
    assert {pod.values[0] for pod in ALL} == {"predictor", "grocer", "grocer-base-weights"}


@every_pod
def test_images_are_fixed(name: str, pod: Object) -> None:
    """Give it a tag or a digest in manifests/components/images."""
    images = [container["image"] for container in pod["containers"]]
    assert images
    for image in images:
        assert Images(serve=image)


@pytest.mark.parametrize("image", ["grocer-serve", "grocer-serve:latest"])
def test_an_image_that_can_change_is_found(image: str) -> None:
    with pytest.raises(ConfigError, match="names no fixed image"):
        Images(serve=image)


@every_pod
def test_requests_and_limits_are_set(name: str, pod: Object) -> None:
    """Say what it needs and may use; a pod without limits takes a node with it."""
    for container in containers(pod):
        if name == "grocer":  # Trainer takes them from the TrainJob
            continue
        resources = container["resources"]
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= resources[kind].keys(), container["name"]
        gpus = {kind: resources[kind].get("nvidia.com/gpu") for kind in ("requests", "limits")}
        assert gpus["requests"] == gpus["limits"]


def test_trainers_requests_and_limits_are_set() -> None:
    (job,) = (thing for thing in build("trainer") if thing["kind"] == "TrainJob")
    for kind in ("requests", "limits"):
        assert {"cpu", "memory", "nvidia.com/gpu"} <= job["spec"]["trainer"]["resourcesPerNode"][
            kind
        ].keys()


def unrestricted(pod: Object) -> list[str]:
    """What the restricted profile of Kubernetes' Pod Security Standards forbids of a pod."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    shared = pod.get("securityContext", {})
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    allowed |= {"persistentVolumeClaim", "name"}
    for volume in pod.get("volumes", ()):
        found += [f"volume {key}" for key in volume.keys() - allowed]
    for container in containers(pod):
        own = container.get("securityContext", {})
        both = {**shared, **own}
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            found.append("root")
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccomp")
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append("privileges")
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or capabilities.get("add"):
            found.append("capabilities")
        if any(port.get("hostPort") for port in container.get("ports", ())):
            found.append("host port")
    return found


@every_pod
def test_it_runs_under_the_restricted_profile(name: str, pod: Object) -> None:
    """The namespace enforces it: what is listed would keep every pod from being made."""
    assert unrestricted(pod) == []


@every_pod
def test_it_can_change_nothing_but_its_volumes(name: str, pod: Object) -> None:
    """Set readOnlyRootFilesystem, and mount a volume where it has to write."""
    for container in containers(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounts
        assert set(mounts.values()) <= {volume["name"] for volume in pod["volumes"]}


@every_pod
def test_it_is_user_1000_without_a_token(name: str, pod: Object) -> None:
    """None of these asks the Kubernetes API."""
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume hostPath"),
        ({"securityContext": {"runAsNonRoot": True}}, "seccomp"),
        ({"initContainers": [{"name": "storage-initializer"}]}, "privileges"),
        ({"initContainers": [{"name": "storage-initializer"}]}, "capabilities"),
    ],
)
def test_what_the_profile_forbids_is_found(change: dict[str, Any], found: str) -> None:
    pod = predictor(build("base/serving"))
    pod["containers"][0]["securityContext"].pop("seccompProfile")
    assert unrestricted(pod) == []
    assert found in unrestricted({**pod, **change})


def test_a_container_as_root_is_found() -> None:
    pod = predictor(build("base/serving"))
    pod["containers"][0]["securityContext"] |= {"runAsUser": 0, "privileged": True}
    pod["containers"][0]["securityContext"]["capabilities"] = {
        "drop": ["ALL"],
        "add": ["SYS_ADMIN"],
    }
    pod["containers"][0]["ports"][0]["hostPort"] = 8080
    assert set(unrestricted(pod)) == {"root", "privileges", "capabilities", "host port"}


PREDICTORS = [param for param in ALL if param.values[0] == "predictor"]


@pytest.mark.parametrize(("name", "pod"), PREDICTORS)
def test_a_predictor_is_asked_how_it_is_over_http(name: str, pod: Object) -> None:
    """KServe's own readiness probe only looks whether the port is open, and none for liveness."""
    container = main_container(pod)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
        assert container[probe]["timeoutSeconds"] <= container[probe]["periodSeconds"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_namespace_of_ours_enforces_the_profile_and_closes_the_network(target: str) -> None:
    objects = build(target)
    for namespace in (thing for thing in objects if thing["kind"] == "Namespace"):
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        name = namespace["metadata"]["name"]
        policies = [t for t in objects if t["kind"] == "NetworkPolicy"]
        closed = [
            p["metadata"]["namespace"]
            for p in policies
            if p["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        ]
        assert closed == [name]


@pytest.mark.parametrize("target", TARGETS)
def test_no_policy_opens_everything(target: str) -> None:
    """Say who may ask, or where it may ask, and at which port."""
    for policy in (thing for thing in build(target) if thing["kind"] == "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
        for rule in rules:
            assert rule["ports"]
            for peer in rule.get("from", rule.get("to")):
                assert peer
                assert peer.get("namespaceSelector") != {}
                if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    # Private addresses, and those at which a node hands out credentials.
                    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(peer["ipBlock"]["except"])


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_may_do_everything(target: str) -> None:
    """Name the verbs and the resources; a secret, by its name."""
    for role in (thing for thing in build(target) if thing["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            assert not {"delete", "deletecollection", "escalate", "bind"} & set(rule["verbs"])
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["resourceNames"]
                assert rule["verbs"] == ["get"]
    assert not [thing for thing in build(target) if thing["kind"].startswith("ClusterRole")]


@pytest.mark.parametrize("target", TARGETS)
def test_no_secret_is_committed(target: str) -> None:
    """Have it made on the cluster, and name it."""
    assert not [thing for thing in build(target) if thing["kind"] == "Secret"]
