"""Versions in the Kubeflow Model Registry, over its REST API (`/api/model_registry/v1alpha3`).

A version is named by its run; its external id is the bundle's digest. A version of a gate that
failed is archived. The fields of `Lineage` are its custom properties.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from pydantic import ValidationError

from grocer.config.deployment import REGISTRY_TOKEN
from grocer.errors import RegistryError, validation_problems
from grocer.progress import say
from grocer.release.lineage import Lineage, Version

_API = "/api/model_registry/v1alpha3/"
_TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"  # of Kubeflow's clients: path of a token that is renewed
_TIMEOUT_SECONDS = (5.0, 15.0)  # to connect, and between two bytes of the response
_VALUES: Mapping[type, tuple[str, str]] = {
    bool: ("MetadataBoolValue", "bool_value"),
    float: ("MetadataDoubleValue", "double_value"),
    int: ("MetadataIntValue", "int_value"),
    str: ("MetadataStringValue", "string_value"),
}


def register_verdict(lineage: Lineage, address: str | None, record: str) -> Version | None:
    """Register a run's verdict, if there is a registry, and report the outcome in one line.

    A registry that is not available changes nothing else: the line then has the command that
    registers the run later.

    Args:
        address: `registry.address`.
        record: what `grocer lineage --register` takes for this run.
    """
    if address is None:
        return None
    try:
        version = ModelRegistry(address).register(lineage)
    except RegistryError as error:
        say(
            "register",
            f"warning: run not registered: {error}; register it later: grocer lineage --register "
            f"{record} --set registry.address={address}",
        )
        return None
    say("register", f"run {lineage.run}: version {version.version_id} in {address}")
    return version


class ModelRegistry:
    """A model registry at an address."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def register(self, lineage: Lineage) -> Version:
        """Register a run's verdict; idempotent, and completes what was interrupted.

        Raises:
            RegistryError: the registry is not available, or rejects the version.
        """
        query = {"name": lineage.name}
        model = self._find_or_create("registered_model", query, query)
        passed = lineage.verdict == "passed"
        body = {
            "name": lineage.run,
            "registeredModelId": model,
            "state": "LIVE" if passed else "ARCHIVED",
            "author": f"grocer {lineage.version}",
            "customProperties": _properties(lineage),
        }
        if lineage.bundle:
            body["externalId"] = lineage.bundle
        query = {"name": lineage.run, "parentResourceId": model}
        version = self._find_or_create("model_version", query, body)
        artifacts = f"model_versions/{version}/artifacts"
        if not (self._get(artifacts) or {}).get("items"):
            kind, name = ("model-artifact", "bundle") if passed else ("doc-artifact", "report")
            artifact = {"artifactType": kind, "name": name, "uri": lineage.uri}
            self._json("POST", artifacts, artifact)
        return Version(model, version)

    def find(self, key: str, name: str) -> Lineage | None:
        """Return the lineage of a version, or None if it is not registered.

        Args:
            key: digest of its bundle, or id of its run.
            name: name of the registered model.

        Raises:
            RegistryError: the registry is not available, or Grocer did not register the version.
        """
        version = self._get("model_version", externalId=key)
        if version is None and (model := self._get("registered_model", name=name)):
            version = self._get("model_version", name=key, parentResourceId=model.get("id"))
        if version is None:
            return None
        try:
            return _lineage(version.get("customProperties") or {})
        except (ValidationError, KeyError, TypeError, AttributeError) as error:
            problem = "properties of another type"
            if isinstance(error, ValidationError):
                problem = validation_problems(error)[0]
            raise RegistryError(
                f"{self._address}: version {version.get('id')} was not registered by this version "
                f"of Grocer: {problem}"
            ) from error

    def _find_or_create(self, kind: str, query: Mapping[str, str], body: Mapping[str, Any]) -> str:
        """Return the id of a resource."""
        found = self._get(kind, **query) or self._json("POST", f"{kind}s", body, conflict=True)
        found = found or self._get(kind, **query)  # another run has created it in the meantime
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):
            raise RegistryError(f"{self._address}: {kind}s: the response has no id")
        return str(found["id"])

    def _get(self, path: str, **query: Any) -> dict[str, Any] | None:
        """Return the response, or None if there is no such resource."""
        return self._json("GET", path, query=query)

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        conflict: bool = False,
    ) -> dict[str, Any] | None:
        """Return the response; None if a resource to read does not exist.

        Args:
            conflict: return None if a resource to create exists (409).
        """
        url = f"{self._address}{_API}{path}"
        failed = f"registry.address: {method} {url}"
        options = {"timeout": _TIMEOUT_SECONDS, "auth": _authorization()}
        try:
            response = requests.request(method, url, params=query, json=body, **options)
            if response.status_code in (401, 403):
                raise RegistryError(
                    f"{failed}: {response.status_code} {response.reason}; set {REGISTRY_TOKEN} to "
                    f"a bearer token with access, or {_TOKEN_FILE} to a file with it"
                )
            content = response.json()
        except requests.JSONDecodeError as error:
            raise RegistryError(
                f"{failed}: {response.status_code} {response.reason}, without JSON; is it a "
                "Kubeflow Model Registry with the API v1alpha3?"
            ) from error
        except requests.RequestException as error:
            raise RegistryError(f"{failed}: {_cause(error)}; check the address") from error
        if (response.status_code == 404 and method == "GET") or (
            response.status_code == 409 and conflict
        ):
            return None
        if not response.ok or not isinstance(content, dict):
            message = content.get("message", "") if isinstance(content, dict) else "not an object"
            raise RegistryError(f"{failed}: {response.status_code} {response.reason}: {message}")
        return content


def _authorization() -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    """Return what adds the bearer token to a request, or None if no variable names a token.

    Raises:
        RegistryError: the file is not readable, or has no token.
    """
    source, token = REGISTRY_TOKEN, os.environ.get(REGISTRY_TOKEN, "")
    if not token:
        path = os.environ.get(_TOKEN_FILE)
        if not path:
            return None
        source = f"{_TOKEN_FILE}={path}"
        try:
            token = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise RegistryError(f"{source}: cannot read: {error.strerror}") from error
    token = token.strip()
    if not re.fullmatch("[!-~]+", token):
        raise RegistryError(f"{source}: expected a bearer token: ASCII text without spaces")

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorize


def _cause(error: BaseException) -> str:
    """Return what the network says, without the library's wrappers."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    reason = getattr(error.args[0], "reason", error) if error.args else type(error).__name__
    return str(reason).rpartition(": ")[2]


def _properties(lineage: Lineage) -> dict[str, dict[str, Any]]:
    """Return the custom properties of a version; a mapping's keys follow a dot."""
    properties = {}
    for field, value in lineage.model_dump().items():
        items = value.items() if isinstance(value, dict) else [(None, value)]
        for key, item in items:
            if item is not None:
                kind, slot = _VALUES[type(item)]
                content = str(item) if kind == "MetadataIntValue" else item  # an int64 is text
                name = field if key is None else f"{field}.{key}"
                properties[name] = {"metadataType": kind, slot: content}
    return properties


def _lineage(properties: Mapping[str, Mapping[str, Any]]) -> Lineage:
    """Return the lineage in the custom properties of a version."""
    slots = dict(_VALUES.values())
    values: dict[str, Any] = {"bundle": None, "base": None, "commit": None, "baselines": {}}
    for name, value in properties.items():
        content = value[slots[value["metadataType"]]]
        content = int(content) if value["metadataType"] == "MetadataIntValue" else content
        field, dot, key = name.partition(".")
        if dot:
            values.setdefault(field, {})[key] = content
        else:
            values[field] = content
    return Lineage.model_validate(values)
