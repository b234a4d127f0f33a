"""Manifests and blobs of an OCI registry, over the protocol of the OCI distribution specification.

Credentials come from ORAS_USER and ORAS_PASS, or from `docker login` (~/.docker/config.json). A
registry on this machine is contacted over http, all others over https.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from logging import CRITICAL
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from oras.auth import get_auth_backend
from oras.container import Container
from oras.logger import logger
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from grocer.errors import GrocerError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MAX_MANIFEST_BYTES = 4 * 1024**2
_TIMEOUT_SECONDS = 60.0
_ADDRESS = re.compile(r"oci(\+native)?://([^/@\s]+)/([a-z0-9._/-]+):([0-9a-f]{64})")
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
_RETRIES = Retry(total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))


class Repository:
    """The repository and the tag of one image."""

    def __init__(self, address: str, *, setting: str, error: type[GrocerError]) -> None:
        """Parse the address; nothing is read yet.

        Args:
            address: `oci://registry/repository:<digest of the bundle>`.
            setting: option or configuration key that holds the address, for error messages.
            error: class of the errors that the methods raise.
        """
        self.address, self._error = address, error
        self._failed = f"{setting}: cannot access {address}"
        if not (match := _ADDRESS.fullmatch(address)):
            raise error(f"{setting} {address}: expected oci://registry/repository:DIGEST")
        _, registry, repository, self._tag = match.groups()
        self._insecure = _LOOPBACK.fullmatch(registry) is not None
        self._container = Container(f"{registry}/{repository}")
        self._root = f"{'http' if self._insecure else 'https'}://{registry}/v2/{repository}/"
        self._session: Any = requests.Session()
        self._session.mount("https://", HTTPAdapter(max_retries=_RETRIES))
        self._session.request = partial(self._session.request, timeout=_TIMEOUT_SECONDS)
        self._authorization: dict[str, str] = {}
        logger.set_level(CRITICAL)  # an error below says the same

    def manifest(self) -> bytes | None:
        """Return the manifest of the tag, or None if it does not exist."""
        headers = {"Accept": MANIFEST_TYPE}
        response = self._request("GET", f"manifests/{self._tag}", headers=headers, stream=True)
        if response.status_code == 404:
            return None
        text = Blob(self, response).read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise self._error(f"{self._failed}: its manifest exceeds {MAX_MANIFEST_BYTES:,} bytes")
        return text

    def put_manifest(self, manifest: bytes) -> None:
        """Let the tag name an image, all blobs of which exist."""
        headers = {"Content-Type": MANIFEST_TYPE}
        self._request("PUT", f"manifests/{self._tag}", data=manifest, headers=headers)

    def open_blob(self, digest: str) -> Blob:
        """Return a blob, of which nothing is verified."""
        response = self._request("GET", f"blobs/{digest}", stream=True)
        if response.status_code == 404:
            raise self._error(f"{self._failed}: the blob {digest} is missing; publish it again")
        return Blob(self, response)

    def put_blob(self, path: Path, digest: str) -> None:
        """Upload a file, unless the repository has it; the registry verifies the digest."""
        if self._request("HEAD", f"blobs/{digest}").status_code == 200:
            return
        upload = self._request("POST", "blobs/uploads/")
        target = urljoin(self._root, upload.headers.get("Location", ""))
        query = urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        with path.open("rb") as file:
            target = f"{target}{'&' if urlsplit(target).query else '?'}{query}"
            self._request("PUT", target, data=file, headers=headers)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate an error of the network or of the registry's answer into one line."""
        try:
            yield
        except (requests.RequestException, HTTPError, ValueError) as failure:
            raise self._error(f"{self._failed}: {failure}; check the address") from failure

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Return the answer: a success, or 404 if the method is GET or HEAD."""
        url = urljoin(self._root, path)
        headers = options.pop("headers", {})
        own = self._is_own(url)

        def send() -> requests.Response:
            # A registry may leave files to a store, which must not get the credentials.
            authorization = self._authorization if own else {}
            return self._session.request(
                method, url, headers={**headers, **authorization}, **options
            )

        with self.errors():
            response = send()
            # Not for the challenge of a store to which the registry redirects.
            asks = response.status_code == 401 and own and self._is_own(response.url)
            if asks and self._authorize(response):
                response = send()
        status = response.status_code
        if status in (401, 403):
            raise self._error(
                f"{self._failed}: access denied ({status}); set ORAS_USER and ORAS_PASS, or use "
                "docker login"
            )
        if not (response.ok or (status == 404 and method in ("GET", "HEAD"))):
            raise self._error(f"{self._failed}: {method} {path}: {status} {response.reason}")
        return response

    def _is_own(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._root)[:2]

    def _authorize(self, response: requests.Response) -> bool:
        """Get the authorization that a response asks for; return whether there is any."""
        challenge = response.headers.get("WWW-Authenticate", "")
        basic = challenge.lower().startswith("basic ")
        if not basic and "realm=" not in challenge:
            return False
        auth = get_auth_backend("basic" if basic else "token", self._session, self._insecure)
        user, password = os.environ.get("ORAS_USER"), os.environ.get("ORAS_PASS")
        if user and password:
            auth.set_basic_auth(user, password)
        else:
            auth.load_configs(self._container)
        if basic and not hasattr(auth, "_basic_auth"):
            return False
        self._authorization, changed = auth.authenticate_request(response, {})
        return bool(changed)


class Blob:
    """The content of an answer, as it is received."""

    def __init__(self, repository: Repository, response: requests.Response) -> None:
        self.address, self._repository, self._response = repository.address, repository, response

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end."""
        with self._repository.errors():
            return bytes(self._response.raw.read(size))

    def close(self) -> None:
        """Close the connection, without receiving the rest."""
        self._response.close()
