"""Check that an object store or a registry is reachable with the current credentials."""

from __future__ import annotations

import os
from typing import Any

from grocer.errors import ConfigError
from grocer.io.storage import client_errors, file_system, is_access_denied
from pipelines.doctor.report import Finding, failed, ok, optional, probe

WHAT = "Object store"
_REQUEST_SECONDS = 4
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_CREATE = {"s3": "aws s3 mb s3://{}", "gs": "gcloud storage buckets create gs://{}"}
_ENDPOINT = {
    "s3": "set AWS_ENDPOINT_URL and AWS_REGION to those of the store",
    "gs": "check the connection to storage.googleapis.com",
}
_REGISTRY = "check the address, and ORAS_USER and ORAS_PASS or docker login"


def store(address: str | None) -> list[Finding]:
    """Check the store at `address`, or else that of AWS_ENDPOINT_URL, without writing to it.

    Raises:
        ConfigError: not the address of a store.
    """
    if address is None and not os.environ.get("AWS_ENDPOINT_URL"):
        return [optional(WHAT, "no --store, no AWS_ENDPOINT_URL", "grocer doctor --store s3://…")]
    protocol, _, path = (address or "s3://").partition("://")
    if address and protocol in ("oci", "oci+native") and all(path.partition("/")):
        return probe(WHAT, "oras", "data", lambda: [_registry(address)], _REGISTRY, needed=True)
    if protocol not in _ENDPOINT or (address and not path.strip("/")):
        raise ConfigError(
            f"--store {address}: expected s3://bucket/prefix, gs://bucket/prefix or "
            "oci://registry/repository"
        )
    return probe(
        WHAT,
        {"s3": "s3fs", "gs": "gcsfs"}[protocol],
        "data",
        lambda: [_store(protocol, path)],
        _ENDPOINT[protocol],
        needed=True,
    )


def _registry(address: str) -> Finding:
    """Ask for the manifest of no bundle, which needs the right to read."""
    from grocer.io.oci_registry import Repository

    try:
        tag = f"{address}:{'0' * 64}"
        found = Repository(tag, setting="--store", error=ConfigError).manifest()
    except ConfigError as error:
        return failed(WHAT, str(error), _REGISTRY, needed=True)
    if found is not None:
        return failed(WHAT, f"{address}: its server is not a registry", _REGISTRY, needed=True)
    return ok(WHAT, f"{address} is readable; write access not checked")


def _store(protocol: str, path: str) -> Finding:
    """List one object below the path, or the buckets if there is no path."""
    bucket, _, prefix = path.partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "") if protocol == "s3" else ""
    where = f"{protocol}://{path}" + (f" at {endpoint}" if endpoint else "") if path else endpoint
    try:
        _list(protocol, bucket, prefix)
    except FileNotFoundError:
        return failed(WHAT, f"{where}: bucket not found", _CREATE[protocol].format(bucket), True)
    except client_errors() as error:
        text = str(error) or type(error).__name__
        if is_access_denied(error):
            return failed(WHAT, f"{where}: access denied: {text}", _CREDENTIALS[protocol], True)
        return failed(WHAT, f"{where}: unreachable: {text}", _ENDPOINT[protocol], True)
    return ok(WHAT, f"{where} is readable; write access not checked")


def _list(protocol: str, bucket: str, prefix: str) -> Any:
    """Send one request, with the client and the environment that a run uses."""
    files = file_system(protocol)
    if protocol == "gs":
        files.requests_timeout = _REQUEST_SECONDS
        return files.call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=1)
    timeouts = {"connect_timeout": _REQUEST_SECONDS, "read_timeout": _REQUEST_SECONDS}
    files.config_kwargs = {**timeouts, "retries": {"total_max_attempts": 1}}
    files.retries = 1
    if bucket:
        found = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    else:
        found = files.call_s3("list_buckets")
    if not found.keys() & {"Name", "Buckets"}:  # a page, as of a console
        raise OSError("the response is not that of an S3 server")
    return found
