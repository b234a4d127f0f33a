"""Whether a retraining is due, from a real bundle, corrections table and predictor's metrics."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from grocer.config.recipes import tiny
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, SourceError
from grocer.release.bundle import LoadedBundle
from grocer.release.lineage import Lineage
from grocer.release.registry import publish
from grocer.retraining.attempts import record_attempt
from grocer.retraining.check import Due, check_due
from tests.fixtures import http_server
from tests.fixtures.artifacts import make_bundle, write_artifacts
from tests.fixtures.corrections import correction, write_corrections
from tests.fixtures.metrics_server import MetricsServer, Traffic

USUAL = Traffic(requests=1100, shares=(0.5, 0.5), confidence=0.9)
DRIFTED = Traffic(requests=1100, confidence=0.4)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    root = tmp_path_factory.mktemp("champion")
    return make_bundle(root, tiny().with_settings([f'data.corrections="{root}/corrections"']))


@pytest.fixture
def check(champion: LoadedBundle, tmp_path: Path) -> Any:
    """Return a function that checks conditions some days after the champion's training."""

    def check(when: str, days: float = 1.0, **options: Any) -> Due:
        given: dict[str, Any] = {
            "config": champion.manifest.config,
            "champion": str(champion.path),
            "metrics": "",
            "cool_down_days": 7.0,
            "state": str(tmp_path / "state"),
            "now": trained(champion) + timedelta(days=days),
        }
        return check_due(when, **(given | options))

    return check


def trained(champion: LoadedBundle) -> datetime:
    return datetime.fromisoformat(champion.manifest.build.started)


def correct(address: str, when: datetime, *names: str, who: str = "ann", label: str = "a") -> str:
    rows = [correction(name, label, who, f"{when:%Y-%m-%d}") for name in names]
    return write_corrections(address, *rows, now=when)


def judged(root: Path, *, passed: bool = False) -> Lineage:
    return Lineage.of_run(write_artifacts(root, passed=passed), tiny(), "report")


@pytest.mark.parametrize(("days", "due"), [(29.9, False), (30.0, True)])
def test_age_of_the_champion(check: Any, days: float, due: bool) -> None:
    result = check("30d", days)
    assert result.due is due
    assert [each.met for each in result.checks] == [due, True]
    assert result.checks[0].cells == ("30d", f"{days:.1f} days", "30 days", "yes" if due else "no")


def test_first_model_is_due_without_any_measurement(check: Any) -> None:
    result = check("drift and 30d", champion="", metrics="http://127.0.0.1:9")
    assert (result.due, result.checks[0].condition) == (True, "no champion")


def test_corrections_count_once_a_name_if_they_apply_and_are_new(
    check: Any, champion: LoadedBundle
) -> None:
    address = champion.manifest.config.data.corrections or ""
    start = trained(champion)
    correct(address, start - timedelta(days=1), "Milk", "Rye", "Old")
    correct(address, start + timedelta(days=1), "MILK!", "Tea")
    correct(address, start + timedelta(days=2), "tea", who="ben")
    correct(address, start + timedelta(days=3), "Rye", who="ben", label="b")  # a conflict
    assert check("3 corrections").checks[0].value.startswith("2 since ")
    assert check("2 corrections").due


def test_all_corrections_of_a_table_that_the_champion_did_not_use_are_new(
    check: Any, champion: LoadedBundle, tmp_path: Path
) -> None:
    address = correct(str(tmp_path / "new"), trained(champion) - timedelta(days=9), "Milk")
    config = champion.manifest.config.with_settings([f'data.corrections="{address}"'])
    assert check("1 corrections", config=config).due


@pytest.mark.parametrize("traffic", [USUAL, DRIFTED])
@pytest.mark.parametrize("source", ["predictor", "prometheus"])
def test_drift_of_the_latest_window(
    check: Any, champion: LoadedBundle, source: str, traffic: Traffic
) -> None:
    with MetricsServer(champion, traffic) as predictor, Prometheus(predictor) as prometheus:
        address = f"{predictor.url}/metrics" if source == "predictor" else f"{prometheus.url}/"
        result = check("drift", metrics=address)
    assert result.due is (traffic is DRIFTED)
    (drift, _) = result.checks
    assert (drift.value.startswith("p = "), drift.limit) == (True, "p ≤ 0.01")


def test_without_a_complete_window_there_is_no_drift(check: Any, champion: LoadedBundle) -> None:
    with MetricsServer(champion, Traffic(requests=5)) as predictor:
        result = check("drift", metrics=f"{predictor.url}/metrics")
    assert (result.due, result.checks[0].value) == (False, "no window of 1,000 names yet")


class Prometheus(http_server.Server):
    """A fake of Prometheus's query API, with the samples of one predictor."""

    def __init__(self, predictor: MetricsServer) -> None:
        super().__init__(PrometheusHandler)
        self.predictor = predictor


class PrometheusHandler(http_server.Handler):
    def do_GET(self) -> None:
        url = urlparse(self.path)
        (query,) = parse_qs(url.query)["query"]
        assert url.path == "/api/v1/query"
        assert query == (
            '{__name__=~"grocer_drift_windows|grocer_drift_p_value",namespace="grocer"}'
        )
        self.server.predictor.simulate()
        text = generate_latest(self.server.predictor.registry).decode()
        result = [
            {"metric": {"__name__": sample.name, **sample.labels}, "value": [0, str(sample.value)]}
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in query
        ]
        self.reply(200, {"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.fixture
def wrong_metrics() -> Iterator[str]:
    """A server that has neither the predictor's metrics nor Prometheus's API."""

    class Handler(http_server.Handler):
        def do_GET(self) -> None:
            self.reply(200, '{"status": "success", "data": {"result": []}}')

    with http_server.Server(Handler) as server:
        yield server.url


def test_source_that_is_not_readable_is_an_error_unless_it_does_not_matter(
    check: Any, champion: LoadedBundle, wrong_metrics: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in ("http://127.0.0.1:9", wrong_metrics, f"{wrong_metrics}/metrics"):
        with pytest.raises(SourceError, match=f"drift .*{address}"):
            check("drift or 30d", metrics=address)
    assert capsys.readouterr().out.count("unknown") == 3
    assert check("drift or 30d", 30, metrics="http://127.0.0.1:9").due
    assert not check("drift and 30d", metrics="http://127.0.0.1:9").due

    with pytest.raises(SourceError, match=r"30d .*not found"):
        check("30d", champion=f"/absent/{champion.digest}")
    (champion.path.parent / "corrections").mkdir(exist_ok=True)
    config = champion.manifest.config.with_settings(["data.corrections=/absent"])
    with pytest.raises(SourceError, match=r"1 corrections .*/absent: not found"):
        check("1 corrections", config=config)


def test_nothing_is_due_during_the_cool_down(check: Any, tmp_path: Path) -> None:
    lineage = judged(tmp_path)
    record_attempt(lineage, str(tmp_path / "state"))
    last = datetime.fromisoformat(lineage.finished)
    for days, due in ((6.9, False), (7.0, True)):
        now = last + timedelta(days=days)
        assert check("1d", now=now).due is due
        result = check("1d", champion="", now=now)
        assert (result.due, result.checks[-1].met) == (due, due)
    assert check("1d", now=last + timedelta(days=2), cool_down_days=1.0).due
    # An unreadable source does not fail a run that does nothing.
    assert not check("drift", now=last + timedelta(days=1), metrics="http://127.0.0.1:9").due


def test_invalid_state_is_an_error(check: Any, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / Lineage.FILE).write_text("{}")
    with pytest.raises(ArtifactError, match=r"lineage\.json"):
        check("30d")


def test_champion_and_state_on_s3(check: Any, champion: LoadedBundle, s3: Any) -> None:
    s3.create_bucket(Bucket="retraining")
    state, uri = "s3://retraining/state", publish(champion, "s3://retraining/bundles")
    assert check("30d", 30, champion=uri, state=state).due
    record_attempt(Lineage.of_bundle(champion, uri), state)
    assert not check("30d", 2, champion=uri, state=state).due
    config: RunConfig = champion.manifest.config.with_settings(
        ["data.corrections=s3://retraining/none"]
    )
    with pytest.raises(SourceError, match="not found"):
        check("1 corrections", 30, champion=uri, config=config)
