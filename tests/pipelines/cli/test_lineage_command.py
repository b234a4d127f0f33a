"""`grocer lineage`: from the registry, from the store, and from what an InferenceService serves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from grocer.release import registry
from grocer.release.bundle import LoadedBundle
from grocer.release.lineage import Lineage
from grocer.release.model_registry import ModelRegistry
from pipelines.cli.main import execute
from serving.rollout.inference_service import Canary, Revision, State, apply_configuration
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.kubernetes_api import Api, write_kubeconfig
from tests.fixtures.model_registry import ModelRegistry as Server

RUN = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> LoadedBundle:
    return make_bundle(tmp_path)


@pytest.fixture
def store(bucket: str, bundle: LoadedBundle) -> str:
    registry.publish(bundle, f"s3://{bucket}/all")
    return f"s3://{bucket}/all"


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Lineage]:
    """Return what the command prints."""
    assert execute(["lineage", "--json", *arguments]) == 0
    return [Lineage.model_validate_json(json.dumps(e)) for e in json.loads(capsys.readouterr().out)]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the error of the command."""
    assert execute(["lineage", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_digest_is_looked_up_in_the_registry_then_in_the_store(
    server: Server, bundle: LoadedBundle, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = Lineage.of_bundle(bundle, f"{store}/{bundle.digest}")
    registered = stored.model_copy(update={"run": RUN})
    address = f"registry.address={server.url}"
    both = ("--set", address, "--set", f"deploy.store={store}")
    assert found(capsys, bundle.digest, *both[2:]) == [stored]
    assert found(capsys, bundle.digest, *both) == [stored]
    ModelRegistry(server.url).register(registered)
    assert found(capsys, bundle.digest, *both) == [registered]
    assert found(capsys, RUN, "--set", address) == [registered]
    header = f"x-model-digest: {bundle.digest}"
    assert found(capsys, "--answer-header", header, "--set", address) == [registered]
    server.fault = "500"
    assert execute(["lineage", bundle.digest, *both]) == 0
    output = capsys.readouterr()
    assert "warning" in output.err
    assert stored.uri in output.out
    assert "database is down" in failure(capsys, RUN, "--set", address)


def test_table_leads_from_the_bundle_to_the_data(
    bundle: LoadedBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["lineage", str(bundle.path)]) == 0
    output = capsys.readouterr().out
    lineage = Lineage.of_bundle(bundle, str(bundle.path))
    for text in (
        bundle.digest,
        "passed",
        lineage.run,
        str(lineage.base),
        *lineage.digests.values(),
    ):
        if text != lineage.digests["model"]:
            assert text in output


def test_service_leads_to_its_stable_bundle_and_its_canary(
    server: Server,
    tmp_path: Path,
    bundle: LoadedBundle,
    store: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canary = Lineage.of_bundle(bundle, f"{store}/x").model_copy(
        update={"bundle": "f" * 64, "run": RUN}
    )
    ModelRegistry(server.url).register(canary)
    uri = f"{store}/{bundle.digest}"
    state = State(
        Revision(uri, bundle.digest, "grocer"),
        Canary(Revision("s3://gone", "f" * 64, "grocer", "cf"), 20),
    )
    with Api({}) as api:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", api.url)))
        options = ("grocer/grocer", "--set", f"registry.address={server.url}")
        assert "no bundle" in failure(capsys, *options)
        api.apply(apply_configuration(api.config(), state))
        assert found(capsys, *options) == [Lineage.of_bundle(bundle, uri), canary]


def test_run_is_registered_later(
    server: Server, bundle: LoadedBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lineage = Lineage.of_bundle(bundle, str(bundle.path))
    (tmp_path / "run").mkdir()
    lineage.write(tmp_path / "run")
    address = f"registry.address={server.url}"
    for source in (tmp_path / "run", bundle.path):
        assert found(capsys, "--register", str(source), "--set", address) == [lineage]
    assert len(server.versions) == 1
    server.fault = "500"
    assert "database is down" in failure(capsys, "--register", str(bundle.path), "--set", address)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "one of"),
        (["0" * 64, "--register", "x"], "one of"),
        (["--register", "x"], "registry.address"),
        (["0" * 64], "registry.address"),
        (["--answer-header", "12ab"], "64"),
        (["0" * 12], "64"),
        (["nowhere"], "nowhere: no such directory"),
    ],
)
def test_user_error_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert problem in failure(capsys, *arguments)
