"""Kubeflow Pipelines' server: reaching it, and what it says in one line where it does not help."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grocer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where Kubeflow Pipelines is, as kfp's own client takes it.

    Without a host, kfp's client asks the environment (`KF_PIPELINES_ENDPOINT`), the pod's
    service account, then the kubeconfig.
    """

    host: str | None = None
    namespace: str | None = None
    """The user's namespace where Kubeflow is shared by several."""
    token_env: str = "KF_PIPELINES_TOKEN"
    """Environment variable of a bearer token; without one, a pod's own token is taken, if it has
    one for Kubeflow (`KF_PIPELINES_SA_TOKEN_PATH`)."""

    def connect(self, client: Callable[..., Any] | None = None) -> Any:
        """A `kfp.Client`, or another `client`; that the server answers is seen when it is asked."""
        import kfp

        # kfp logs each failed attempt with its traceback to whoever listens.
        logging.getLogger().addHandler(logging.NullHandler())
        token = os.environ.get(self.token_env)
        with warnings.catch_warnings(), self.explained():
            warnings.simplefilter("ignore")
            return (client or kfp.Client)(
                host=self.host,
                namespace=self.namespace or "kubeflow",
                existing_token=token,
                credentials=None if token else _own_token(),
            )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what a server, or none, answers into one clear line.

        Raises:
            ConfigError: the server can't be reached, or refuses.
        """
        import kfp_server_api
        import urllib3

        where = self.host or "the host that kfp's client found"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except (urllib3.exceptions.HTTPError, TimeoutError) as error:
            raise ConfigError(
                f"--host: no Kubeflow Pipelines answers at {where}: {error}"
            ) from error
        except kfp_server_api.ApiException as error:
            denied = error.status in (401, 403)
            hint = f"; a token is taken from {self.token_env}" if denied else ""
            said = " ".join(str(error.body or error.reason).split())[:300]
            raise ConfigError(f"{where} refused ({error.status}): {said}{hint}") from error


def log_of(client: Any, run_id: str, node: str) -> str:
    """What a step that has ended printed, as Kubeflow keeps it; empty where it keeps none."""
    import kfp_server_api
    import urllib3

    path = f"/apis/v2beta1/runs/{run_id}/nodes/{node}/artifacts/main-logs:read"
    try:
        answer = client._run_api.api_client.call_api(
            path,
            "GET",
            header_params={"Accept": "application/json"},
            auth_settings=["Bearer"],
            response_type="object",
            _return_http_data_only=True,
        )
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError):
        return ""
    return base64.b64decode(answer["data"]).decode(errors="replace")


def _own_token() -> Any:
    """A pod's own token for Kubeflow, which its kubelet renews; None where there is none."""
    from kfp import client

    given = os.environ.get(client.KF_PIPELINES_SA_TOKEN_ENV) or client.KF_PIPELINES_SA_TOKEN_PATH
    return client.ServiceAccountTokenVolumeCredentials(given) if Path(given).is_file() else None
