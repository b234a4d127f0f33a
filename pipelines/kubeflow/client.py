"""Connect to the Kubeflow Pipelines API; its errors become one-line `ConfigError`s."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grocer.errors import ConfigError
from serving.rollout.api_errors import describe_error

ACCOUNT = "grocer-pipeline"
"""Service account of manifests/ for the pods of a run; it may deploy a bundle."""

RESPONSE_SECONDS = 60
"""Limit of the wait for a response, with all attempts."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Address and credentials of Kubeflow Pipelines.

    Without a host, kfp's client uses `KF_PIPELINES_ENDPOINT`, the pod's service account or the
    kubeconfig, in this order.
    """

    host: str | None = None
    namespace: str | None = None
    """The user's namespace in a multi-user Kubeflow."""
    token_env: str = "KF_PIPELINES_TOKEN"
    """Environment variable with a bearer token. If it is not set, a pod uses its projected token
    for Kubeflow (`KF_PIPELINES_SA_TOKEN_PATH`)."""

    def connect(self, *, check: bool = True) -> Any:
        """Return a `kfp.Client`; it sends no request if `check` is false.

        Raises:
            ConfigError: the server is unreachable, rejects the request or is not Kubeflow, or the
                token is malformed.
        """
        import kfp

        health = self.health if check else lambda client: {"multi_user": False}
        token_env = self.token_env

        class Client(kfp.Client):  # type: ignore[misc, unused-ignore]
            def _load_config(self, host: str | None, *other: Any) -> Any:
                configuration = super()._load_config(host, *other)
                if not host and configuration.host == type(configuration)().host:
                    raise ConfigError(
                        "no address of Kubeflow Pipelines: pass --host, for example "
                        f"http://127.0.0.1:8888. The kubeconfig is used only if {token_env} is not "
                        "set, and if it can be loaded"
                    )
                _keep_host(configuration)
                return configuration

            def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
                """Send one request; kfp's own repeats it five times."""
                return SimpleNamespace(**health(self))

        # Without a handler, kfp's logging prints the traceback of a failed request.
        logging.getLogger().addHandler(logging.NullHandler())
        token = os.environ.get(self.token_env, "").strip()
        if not re.fullmatch("[!-~]*", token):
            raise ConfigError(
                f"{self.token_env}: expected a bearer token: ASCII text without spaces"
            )
        with warnings.catch_warnings(), self.translated_errors():
            warnings.simplefilter("ignore")
            client = Client(
                host=self.host,
                namespace=self.namespace or "kubeflow",
                existing_token=token or None,
                credentials=None if token else _projected_token(),
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),  # kfp uses certifi's only
            )
            self._check_responses(client.healthzs.api_client.rest_client)
            client.get_kfp_healthz()  # with a namespace, the constructor does not call it
        return client

    def _check_responses(self, rest: Any) -> None:
        """Limit the wait for each response, and reject login pages.

        kfp waits without limit, and takes a page for an object without values.
        """
        send = rest.request

        def request(
            method: str, url: str, _request_timeout: int | None = None, **other: Any
        ) -> Any:
            # urllib3 repeats all methods but POST three times.
            seconds = _request_timeout or RESPONSE_SECONDS // (1 if method == "POST" else 4)
            response = send(method, url, _request_timeout=seconds, **other)
            headers = getattr(response, "urllib3_response", response).headers
            if "html" in headers.get("content-type", ""):
                raise self._not_kubeflow(url, headers)
            return response

        rest.request = request

    def _not_kubeflow(self, url: str, headers: Mapping[str, str]) -> ConfigError:
        host, kind = url.partition("/apis/")[0], headers.get("content-type", "no content type")
        return ConfigError(
            f"--host {host}: not Kubeflow Pipelines (its response is {kind}); if it is a login "
            f"page, set {self.token_env} to a valid token, or use kubectl port-forward"
        )

    def health(self, client: Any, seconds: int | None = None) -> dict[str, Any]:
        """Return the server's version and whether it is multi-user, within `seconds` per attempt.

        Raises:
            ConfigError: the server is not Kubeflow Pipelines.
        """
        # Undecoded, as kfp_server_api's model of the response has no version. The constructor of
        # kfp's client calls this before `_check_responses` limits the wait.
        response = client.healthzs.healthz_service_get_healthz(
            _preload_content=False, _request_timeout=seconds or RESPONSE_SECONDS // 4
        )
        try:
            health = json.loads(response.data)
        except ValueError:
            health = None
        if not isinstance(health, dict):
            host = client.healthzs.api_client.configuration.host
            raise self._not_kubeflow(host, response.headers)
        return {"multi_user": False, **health}  # Kubeflow omits fields that are false

    @contextlib.contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Turn API and connection errors into one line, and discard what kfp prints.

        Raises:
            ConfigError: the server is unreachable, rejects the request, or is not Kubeflow.
        """
        import kfp_server_api
        import urllib3

        server = f"--host: Kubeflow Pipelines at {self.host or 'its default host'}"
        errors = (urllib3.exceptions.HTTPError, TimeoutError, kfp_server_api.ApiException)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except errors as error:
            text, hint = describe_error(error, server)[:400], self.hint(error)
            raise ConfigError(f"{text}; {hint}" if hint else text) from error
        except kfp_server_api.OpenApiException as error:  # an expected field was missing
            raise ConfigError(f"{server}: unexpected response ({error}); check the host") from error

    def hint(self, error: BaseException | None) -> str:
        """Return the next step after an error of the API or the connection, if it is known."""
        if getattr(error, "status", None) in (401, 403):
            has_host = self.host or "KF_PIPELINES_ENDPOINT" in os.environ
            login = "" if has_host else "log in again, or forward the port, pass --host and "
            return f"{login}set {self.token_env} to a valid token"
        if re.search("WRONG_VERSION|UNEXPECTED_EOF|RECORD_LAYER", str(error)):
            return "if it does not use TLS, pass --host with http://"
        # The CA is unknown, or its file cannot be read; no CA helps if the name does not match.
        is_ca = re.search("self.signed|unable to get|No such file|NO_CERTIFICATE", str(error))
        return "set SSL_CERT_FILE to the file of its CA" if is_ca else ""


def read_log(client: Any, run_id: str, node: str) -> str:
    """Return the log of an Argo node that has ended; empty if Kubeflow did not keep it."""
    # Whoever submits a run may not be allowed to read the pod's log.
    path = f"/apis/v2beta1/runs/{run_id}/nodes/{node}/artifacts/main-logs:read"
    content = _get(client, path)
    return base64.b64decode(json.loads(content)["data"]).decode(errors="replace") if content else ""


def read_running_log(client: Any, run_id: str, node: str) -> str:
    """Return the log of a running Argo node so far; empty if Kubeflow does not show it."""
    path = f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log"
    return _get(client, path).decode(errors="replace")


def _get(client: Any, path: str) -> bytes:
    """Return the content of a path that has no method in kfp_server_api; empty after an error."""
    import kfp_server_api
    import urllib3

    try:
        response = client.runs.api_client.call_api(
            path,
            "GET",
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        content: bytes = response.data  # not received until now
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError):
        return b""
    return content


def _keep_host(configuration: Any) -> None:
    """Keep the path of Kubernetes' proxy in the address, and tokens without a line break.

    With a token in the kubeconfig, also of a plugin, the kubernetes package resets the address to
    that of the cluster before each request, and its hook to itself.
    """
    refresh, host = configuration.refresh_api_key_hook, configuration.host.rstrip("/")

    def keep(configuration: Any) -> None:
        if refresh is not None:
            refresh(configuration)
        configuration.host, configuration.refresh_api_key_hook = host, keep
        configuration.api_key = {k: key.strip() for k, key in configuration.api_key.items()}

    keep(configuration)


def _projected_token() -> Any:
    """Return the pod's credentials for Kubeflow, which the kubelet renews; None outside a pod."""
    from kfp import client

    path = os.environ.get(client.KF_PIPELINES_SA_TOKEN_ENV) or client.KF_PIPELINES_SA_TOKEN_PATH
    return client.ServiceAccountTokenVolumeCredentials(path) if Path(path).is_file() else None
