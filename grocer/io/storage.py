"""Tables from `s3://`, `gs://` and `https://`, fetched through fsspec and checked to be whole.

Where the endpoint, the region and the credentials are is the environment's business, as on a
cluster: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and their like, a service account, or
GOOGLE_APPLICATION_CREDENTIALS.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from grocer import progress as console
from grocer.errors import OutputError, SourceError
from grocer.ingest.schema import TABLES
from grocer.io.zip import TABLE_SUFFIXES

PROTOCOLS = ("s3", "gs", "https", "http")
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
_FILES = (".zip", ".csv", ".parquet")
_VERSION = ("ETag", "etag", "generation", "LastModified", "Last-Modified", "mtime", "size")

T = TypeVar("T")


def is_remote(source: str) -> bool:
    """Whether `source` is an address rather than a path."""
    return "://" in source


def fetch(source: str, target: Path, own: bool = False) -> Path:
    """Fetch a file, or the tables in a folder (all of them with `own`), into `target`.

    Raises:
        SourceError: an unknown protocol, no access, nothing there, or not whole after retries.
    """
    protocol = source.partition("://")[0]
    if protocol not in PROTOCOLS:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise SourceError(f"--data {source}: unknown address; known are {known}, or a path")
    store = _Store(protocol)
    target.mkdir(parents=True)
    if _file(source).endswith(_FILES):
        return store.fetch(source, target)
    for address in store.tables(source.rstrip("/"), own):
        store.fetch(address, target)
    return target


def file_system(protocol: str) -> Any:
    """fsspec's file system for a protocol, which caches nothing."""
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "s3":
        # botocore reads AWS_ENDPOINT_URL by itself, but not AWS_REGION, as clusters set it.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        options["client_kwargs"] = {"region_name": region} if region else {}
    return fsspec.filesystem(protocol, **options)


class _Store:
    """A remote file system whose passing faults are waited out, and others said in one line."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.files = file_system(protocol)

    def tables(self, folder: str, own: bool) -> list[str]:
        """Addresses of the tables in a folder; web servers don't list, so there they are tried.

        Raises:
            SourceError: the folder can't be listed.
        """
        if self.protocol in ("s3", "gs"):
            names = self._try(folder, lambda: self.files.ls(folder, detail=False))
            found = [f"{self.protocol}://{name}" for name in names if name.endswith(TABLE_SUFFIXES)]
            return [name for name in found if own or _file(name).split(".")[0] in TABLES]
        if own:
            raise SourceError(f"--data {folder}: give the address of the file itself")
        addresses = [f"{folder}/{table}{suffix}" for table in TABLES for suffix in TABLE_SUFFIXES]
        return [address for address in addresses if self._is_there(address)]

    def fetch(self, address: str, target: Path) -> Path:
        """Copy one object, and check that it did not change meanwhile and came whole.

        Raises:
            SourceError: it can't be had, it changed, or it was cut short.
        """
        path = target / _file(address)
        before = self._try(address, lambda: self.files.info(address))
        size = before.get("size")
        console.say("ingest", f"fetching {address}" + (f" ({size / 1e6:,.1f} MB)" if size else ""))
        self._try(address, lambda: self.files.get_file(address, str(path)))
        after = self._try(address, lambda: self.files.info(address))
        if any(before.get(key) != after.get(key) for key in _VERSION):
            raise SourceError(f"--data {address} changed while it was read; run again")
        came = path.stat().st_size
        if size is not None and came != size:
            raise SourceError(f"--data {address} came cut short: {came:,} of {size:,} bytes")
        return path

    def _is_there(self, address: str) -> bool:
        try:
            self._try(address, lambda: self.files.info(address))
        except SourceError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        return True

    def _try(self, address: str, action: Callable[[], T]) -> T:
        """Do it, and again after a growing wait where the fault may pass."""
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except faults() as caught:
                if _is_local(caught):
                    raise
                error = _cause(caught)
                text = " ".join(str(error).split()) or type(error).__name__
                if isinstance(error, FileNotFoundError):
                    raise SourceError(f"--data {address}: nothing is there") from error
                if is_denied(error):
                    raise SourceError(
                        f"--data {address}: access denied ({text}); check the credentials in "
                        "the environment"
                    ) from error
                if attempt + 1 == ATTEMPTS:
                    raise SourceError(
                        f"--data {address}: can't be read after {ATTEMPTS} attempts ({text})"
                    ) from error
                wait = FIRST_WAIT_SECONDS * 2**attempt
                console.say("ingest", f"{address}: {text}; trying again in {wait:g} s")
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


@contextmanager
def reaching(address: str, action: str, setting: str) -> Iterator[None]:
    """Say in one line what keeps a place from being read or written.

    Args:
        address: the place; a path where it is on this machine.
        action: `read` or `write`.
        setting: the key of the configuration that names the place.

    Raises:
        OutputError: the block ended with a fault of the network, the store or the disk.
    """
    expected = faults() if is_remote(address) else (OSError,)
    try:
        yield
    except expected as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OutputError(
            f"{setting}: cannot {action} {address}: {reason}; see that it exists and that the "
            f"credentials in the environment may {action} there"
        ) from error


def faults() -> tuple[type[BaseException], ...]:
    """What the clients raise where the fault is the network's, the server's or the address's."""
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    clients = (aiohttp.ClientError, BotoCoreError, ClientError, HttpError, GoogleAuthError)
    return (OSError, TimeoutError, *clients)


def _cause(error: BaseException) -> BaseException:
    """The error itself, or its cause where fsspec's web client calls any fault `not found`."""
    import aiohttp

    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, aiohttp.ClientError):
        return error
    return error if getattr(cause, "status", None) in (404, 410) else cause


def _is_local(error: BaseException) -> bool:
    """Whether it is our own disk that failed."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def is_denied(error: BaseException) -> bool:
    """Whether the server, or the lack of credentials, says no: waiting would not help."""
    from botocore.exceptions import NoCredentialsError
    from google.auth.exceptions import GoogleAuthError

    if isinstance(error, PermissionError | NoCredentialsError | GoogleAuthError):
        return True
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    return status in (401, 403) or str(error).startswith("Forbidden")


def _file(address: str) -> str:
    """The last part of an address."""
    return address.partition("?")[0].rpartition("/")[2]
