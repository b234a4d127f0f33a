"""What the conditions read: the champion and the drift metrics of the predictor."""

import http.client
import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from grocer.errors import BundleError, SourceError
from grocer.io.storage import Storage
from grocer.release.manifest import MANIFEST, Manifest, parse_manifest

_WINDOWS, _P_VALUE = "grocer_drift_windows", "grocer_drift_p_value"
_SECONDS = 15.0
_MAX_BYTES = 16 * 1024**2


def read_champion(address: str) -> Manifest:
    """Return the verified bundle.json of the champion at a path or URI.

    Raises:
        BundleError: it is not readable, or not that of the bundle with this digest.
    """
    from grocer.release.registry import is_image

    digest = address.rstrip("/")[-64:]
    if is_image(address):
        from grocer.release.image import fetch_manifest

        return fetch_manifest(address, digest, "--champion")
    storage = Storage(address, setting="champion", step="check_due", error=BundleError)
    return parse_manifest(storage.read_bytes(MANIFEST), digest, address)


def read_drift(url: str, namespace: str) -> tuple[float, str] | None:
    """Return the lowest p-value of the latest complete windows, and its signal.

    Args:
        url: a predictor's `/metrics`, or Prometheus, which is queried for all predictors in
            `namespace`.

    Returns:
        None if no window is complete.

    Raises:
        SourceError: not reachable, or without the drift metrics.
    """
    try:
        samples = list(_samples(url.rstrip("/"), namespace))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"--metrics: cannot read {url}: {error or type(error).__name__}"
        ) from error
    if not any(name == _WINDOWS for name, _, _ in samples):
        raise SourceError(
            f"--metrics: {url} has no {_WINDOWS} of namespace {namespace}; expected Prometheus "
            "that scrapes the predictor, or the predictor's /metrics"
        )
    values = [(value, labels["signal"]) for name, labels, value in samples if name == _P_VALUE]
    return min(values, default=None)


def _samples(url: str, namespace: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, labels and value of each drift metric."""
    if url.endswith("/metrics"):
        for family in text_string_to_metric_families(_get(url).decode()):
            for sample in family.samples:
                yield sample.name, sample.labels, float(sample.value)
        return
    selector = f'{{__name__=~"{_WINDOWS}|{_P_VALUE}",namespace="{namespace}"}}'
    content: Any = json.loads(_get(f"{url}/api/v1/query?{urlencode({'query': selector})}"))
    for each in content["data"]["result"]:
        yield each["metric"]["__name__"], each["metric"], float(each["value"][1])


def _get(url: str) -> bytes:
    # Without the environment's proxy, which cannot reach pods.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_SECONDS) as response:
        return bytes(response.read(_MAX_BYTES))
