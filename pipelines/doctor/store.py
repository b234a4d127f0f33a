"""What `grocer doctor` finds of an object store: whether it answers, and to these credentials."""

from __future__ import annotations

import os
from typing import Any

from grocer.errors import ConfigError
from grocer.io.storage import client_errors, file_system, is_access_denied
from pipelines.doctor.report import Finding, asked, lacking, ok, unneeded

WHAT = "Object store"
_SECONDS = 4  # for one answer
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_MAKE = {"s3": "aws s3 mb s3://{}", "gs": "gcloud storage buckets create gs://{}"}
_PLACE = {
    "s3": "set AWS_ENDPOINT_URL and AWS_REGION as the store has them",
    "gs": "see that storage.googleapis.com can be reached from here",
}


def store(address: str | None) -> list[Finding]:
    """The store at `address`, as for `deploy.store`; without one, that of AWS_ENDPOINT_URL.

    Nothing is written there, so whether it may be is not seen.

    Raises:
        ConfigError: the address is none of an object store.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if address is None and endpoint is None:
        return [unneeded(WHAT, "no --store, no AWS_ENDPOINT_URL", "grocer doctor --store s3://…")]
    protocol, _, path = (address or "s3://").partition("://")
    if protocol not in _PLACE or (address and not path.strip("/")):
        raise ConfigError(f"--store {address}: expected s3://bucket/prefix or gs://bucket/prefix")
    needed = address is not None
    return asked(
        WHAT,
        {"s3": "s3fs", "gs": "gcsfs"}[protocol],
        "data",
        lambda: [_store(protocol, path, needed)],
        _PLACE[protocol],
        needed=needed,
    )


def _store(protocol: str, path: str, needed: bool) -> Finding:
    """Look for one object below the path, or for a bucket where none is named."""
    bucket, _, prefix = path.partition("/")
    where = f"{protocol}://{path}" if path else os.environ["AWS_ENDPOINT_URL"]
    at = os.environ.get("AWS_ENDPOINT_URL") if protocol == "s3" and path else None
    place = where + (f" at {at}" if at else "")
    try:
        _list(protocol, bucket, prefix)
    except FileNotFoundError:
        return lacking(WHAT, f"{place}: no such bucket", _MAKE[protocol].format(bucket), needed)
    except client_errors() as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if not is_access_denied(error):
            return lacking(WHAT, f"{place}: no answer: {said}", _PLACE[protocol], needed)
        return lacking(WHAT, f"{place}: no access: {said}", _CREDENTIALS[protocol], needed)
    return ok(WHAT, f"{place} lists what it holds; writing was not tried")


def _list(protocol: str, bucket: str, prefix: str) -> Any:
    """Ask once, with the clients and the environment that a run has."""
    files = file_system(protocol)
    if protocol == "gs":
        files.requests_timeout = _SECONDS
        return files.call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=1)
    patience = {"connect_timeout": _SECONDS, "read_timeout": _SECONDS}
    files.config_kwargs = {**patience, "retries": {"total_max_attempts": 1}}
    files.retries = 1
    if not bucket:
        return files.call_s3("list_buckets")
    return files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
