"""Files in object stores, on web servers and on local disks, through fsspec.

Endpoint, region and credentials come from the environment, as on a cluster: AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID and related variables, a service account, or
GOOGLE_APPLICATION_CREDENTIALS.
"""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from grocer import progress
from grocer.errors import GrocerError, OutputError, redacted
from grocer.io.atomic import atomic_file

PROTOCOLS = ("s3", "gs", "https", "http")
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
MAX_DOCUMENT_BYTES = 32 * 1024**2
_BLOCK_BYTES = 8 * 1024**2
_FILE_NAME = re.compile(r"[\w.+=-]{1,200}(/[\w.+=-]{1,200}){0,7}", re.ASCII)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_VERSION_KEYS = ("ETag", "etag", "generation", "LastModified", "Last-Modified", "mtime", "size")

T = TypeVar("T")


class Storage:
    """The files at or below one address or local path.

    A `name` is relative to the address; an empty name is the address itself. Transient errors of
    a remote store are retried with exponential backoff; all others are raised as one line.
    """

    def __init__(
        self,
        address: str,
        *,
        setting: str,
        step: str | None = None,
        error: type[GrocerError] = OutputError,
    ) -> None:
        """Choose the file system of `address`; nothing is read yet.

        Args:
            address: `s3://`, `gs://`, `https://` or another URI that fsspec knows, or a local path.
            setting: option or configuration key that holds the address, for error messages.
            step: pipeline step that reports retries, if any.
            error: class of the errors that the methods raise.
        """
        self.address, self.setting, self.step, self.error = address, setting, step, error
        protocol, is_uri, path = address.partition("://")
        if is_uri and protocol not in ("http", "https", "file") and redacted(address) != address:
            # The client would take them for a part of the name, and show them in its errors.
            raise error(
                f"{setting} {address}: {protocol}:// addresses hold no user or query; set the "
                "credentials in the environment"
            )
        self.is_local = not is_uri or protocol == "file"
        self._root = os.path.abspath(path if is_uri else address) if self.is_local else address
        self.local = Path(self._root) if self.is_local else None
        try:
            self._files = file_system("file" if self.is_local else protocol)
        except (ImportError, ValueError) as failure:
            raise error(f"{setting} {address}: {failure}") from failure

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file or a directory of this name."""
        return self._find_info(name) is not None

    def info(self, name: str = "") -> dict[str, Any]:
        """Return fsspec's information on a file, such as `size` in bytes if it is known."""
        return self._try("read", name, self._files.info)

    def version(self, name: str = "") -> dict[str, str]:
        """Return what changes with a file's content, such as size, time and tag."""
        info = self.info(name)
        return {key: str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None}

    def list(self, name: str = "") -> list[str]:
        """Return the names of the files and directories directly in a directory."""
        paths = self._try("read", name, lambda path: self._files.ls(path, detail=False))
        return [str(path).rstrip("/").rpartition("/")[2] for path in paths]

    def find(self, name: str = "") -> dict[str, dict[str, Any]]:
        """Return the `info` of all files below a directory, by their relative names."""
        found = self._try("read", name, lambda path: self._files.find(path, detail=True))
        root = self._files._strip_protocol(_join(self._root, name)).rstrip("/")
        return {str(path).removeprefix(f"{root}/"): info for path, info in found.items()}

    def get(self, local: Path, name: str = "") -> None:
        """Copy a file to `local`, and check that it is complete and did not change meanwhile."""
        before = self.version(name)
        self._try("read", name, lambda path: self._files.get_file(path, str(local)))
        after = self.version(name)
        source = f"{self.setting}: {_join(self.address, name)}"
        if before != after:
            raise self.error(f"{source} changed while it was read; run again")
        size, expected = local.stat().st_size, int(before.get("size", -1))
        if expected not in (-1, size):
            raise self.error(
                f"{source} is truncated: received {size:,} of {expected:,} bytes; run again"
            )

    def get_listed(self, sizes: Mapping[str, int], target: Path, folder: str = "") -> str | None:
        """Copy the files in `folder` that a manifest lists to the directory `target`.

        No name is trusted: a file outside of `target` is never written. Nothing else in the
        folder is read, and no file of another size than listed is copied.

        Args:
            sizes: in bytes, by name relative to `folder`.

        Returns:
            What is wrong with the list or with a file in the store, or None.
        """
        if (name := invalid_name(sizes)) is not None:
            return f"{name[:80]!r} is not a valid file name"
        for name, size in sizes.items():
            remote = _join(folder, name) if folder else name
            info = self._find_info(remote)
            if info is None or info["type"] != "file":
                return f"{name} is missing"
            if info.get("size") != size:
                return f"{name} has {info.get('size')} bytes instead of {size}"
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            self.get(target / name, remote)
        return None

    def put(self, local: Path, name: str = "") -> None:
        """Copy `local` to a file, which appears only once it is complete."""

        def copy(path: str) -> None:
            if self.is_local:
                with atomic_file(Path(path)) as part:
                    shutil.copyfile(local, part)
            else:
                self._files.put_file(str(local), path)

        self._try("write", name, copy)

    def read_bytes(self, name: str = "", limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Return the content of a file of at most `limit` bytes."""
        size = self.info(name).get("size") or 0
        if size > limit:
            raise self.error(
                f"{self.setting}: {_join(self.address, name)} has {size:,} bytes; expected at "
                f"most {limit:,}"
            )
        return bytes(self._try("read", name, self._files.cat_file))

    def write_bytes(self, content: bytes, name: str = "") -> None:
        """Write a file, which appears only once it is complete."""

        def write(path: str) -> None:
            if self.is_local:
                with atomic_file(Path(path)) as part:
                    part.write_bytes(content)
            else:
                self._files.pipe_file(path, content)

        self._try("write", name, write)

    def sha256(self, name: str = "") -> str:
        """Return the SHA-256 of a file's content, in hex, reading it in blocks."""

        def digest(path: str) -> str:
            with self._files.open(path, "rb", block_size=_BLOCK_BYTES) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return self._try("read", name, digest)

    def remove(self, name: str = "") -> None:
        """Remove a file, or a directory and all files below it."""

        def delete(path: str) -> None:
            if self.is_local:
                self._files.rm(path, recursive=True)
                return
            # rm() of an object store takes a path as a pattern.
            for file in self._files.find(path):
                self._files.rm_file(file)

        self._try("write", name, delete)

    def _find_info(self, name: str) -> dict[str, Any] | None:
        """Return the `info` of a file or directory, or None if it does not exist."""
        try:
            return self.info(name)
        except self.error as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return None

    def _try(self, action: str, name: str, operation: Callable[[str], T]) -> T:
        """Return `operation(path)`, retried after transient errors."""
        address = _join(self.address, name)
        failed = f"{self.setting}: cannot {action} {address}"
        attempt = 0
        while True:
            attempt += 1
            try:
                return operation(_join(self._root, name))
            except client_errors() as raised:
                error = _without_credentials(_cause(raised))
                reason = " ".join(str(error).split()) or type(error).__name__
                if getattr(error, "errno", None) in _DISK_ERRORS:
                    raise OutputError(f"{failed}: {reason}; choose another disk") from error
                if isinstance(error, FileNotFoundError):
                    reason = "not found" if action == "read" else reason
                    raise self.error(f"{failed}: {reason}; check the address") from error
                if self.is_local:
                    raise self.error(f"{failed}: {reason}") from error
                if is_access_denied(error):
                    raise self.error(
                        f"{failed}: access denied ({reason}); check the credentials in the "
                        "environment"
                    ) from error
                if attempt == ATTEMPTS:
                    raise self.error(f"{failed} after {ATTEMPTS} attempts: {reason}") from error
                wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
                if self.step is not None:
                    progress.say(self.step, f"{address}: {reason}; retrying in {wait:g} s")
                time.sleep(wait)


def invalid_name(names: Collection[str]) -> str | None:
    """Return the first relative name that is not safe to write, or is below another; else None."""
    files = {PurePosixPath(name) for name in names}
    for name in names:
        unsafe = not _FILE_NAME.fullmatch(name) or {".", ".."} & set(name.split("/"))
        if unsafe or files & set(PurePosixPath(name).parents):
            return name
    return None


def file_system(protocol: str) -> Any:
    """Return fsspec's file system for a protocol, without any caches."""
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "s3":
        # botocore reads AWS_ENDPOINT_URL itself, but not AWS_REGION, which clusters set.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        options["client_kwargs"] = {"region_name": region} if region else {}
    return fsspec.filesystem(protocol, **options)


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the clients raise on errors of the network, the server or the address."""
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    clients = (aiohttp.ClientError, BotoCoreError, ClientError, HttpError, GoogleAuthError)
    return (OSError, *clients)


def is_access_denied(error: BaseException) -> bool:
    """Return whether credentials are missing or rejected, so that a retry would not help."""
    from botocore.exceptions import ClientError, NoCredentialsError
    from google.auth.exceptions import GoogleAuthError

    if isinstance(error, PermissionError | NoCredentialsError | GoogleAuthError):
        return True
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    if isinstance(error.__cause__, ClientError):  # of S3, behind an OSError
        status = error.__cause__.response["ResponseMetadata"]["HTTPStatusCode"]
    return status in (401, 403) or str(error).startswith("Forbidden")


def _cause(error: Exception) -> BaseException:
    """Return the cause of a `FileNotFoundError` that fsspec raises for any web error but 404."""
    import aiohttp

    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, aiohttp.ClientError):
        return error
    return error if getattr(cause, "status", None) in (404, 410) else cause


def _without_credentials(error: BaseException) -> BaseException:
    """Return the error, or one of the same kind if its text has credentials: logs show it."""
    text = redacted(str(error))
    if text == str(error):
        return error
    for kind in (FileNotFoundError, PermissionError):
        if isinstance(error, kind):
            return kind(text)
    return PermissionError(text) if is_access_denied(error) else OSError(text)


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}" if name else root
