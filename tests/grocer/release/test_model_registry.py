"""Registering verdicts: the contract, repeated and interrupted runs, and failing registries."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from grocer.errors import RegistryError
from grocer.release import model_registry as module
from grocer.release.lineage import Lineage, Version
from grocer.release.model_registry import ModelRegistry, register_verdict
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.model_registry import ModelRegistry as Server
from tests.fixtures.ports import free_port

RUN = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def registry(server: Server) -> ModelRegistry:
    return ModelRegistry(server.url)


@pytest.fixture
def passed(tmp_path: Path) -> Lineage:
    lineage = Lineage.of_bundle(make_bundle(tmp_path), "s3://b/x")
    return lineage.model_copy(update={"run": RUN})


@pytest.fixture
def failed(passed: Lineage) -> Lineage:
    changes = {"bundle": None, "verdict": "failed", "failed_rules": "Too low.", "uri": "r.html"}
    return passed.model_copy(update=changes)


def test_passed_run_becomes_a_live_version_with_its_bundle(server: Server, passed: Lineage) -> None:
    assert ModelRegistry(server.url).register(passed) == Version("1", "1")
    (version,) = server.versions
    assert (version["name"], version["externalId"]) == (RUN, passed.bundle)
    assert version["state"] == "LIVE"
    properties = version["customProperties"]
    accuracy = {"metadataType": "MetadataDoubleValue", "double_value": passed.accuracy}
    assert properties["accuracy"] == accuracy
    assert properties["digests.splits"]["string_value"] == passed.digests["splits"]
    (artifact,) = server.tables["artifacts"]
    assert (artifact["artifactType"], artifact["uri"]) == ("model-artifact", "s3://b/x")


def test_failed_run_becomes_an_archived_version_with_its_report(
    server: Server, registry: ModelRegistry, failed: Lineage
) -> None:
    registry.register(failed)
    (version,) = server.versions
    assert version["state"] == "ARCHIVED"
    assert "externalId" not in version
    assert version["customProperties"]["verdict"]["string_value"] == "failed"
    (artifact,) = server.tables["artifacts"]
    assert (artifact["artifactType"], artifact["uri"]) == ("doc-artifact", "r.html")
    assert registry.find(RUN, failed.name) == failed


def test_versions_are_found_by_digest_and_by_run(registry: ModelRegistry, passed: Lineage) -> None:
    assert registry.find(RUN, passed.name) is None
    registry.register(passed)
    assert passed.bundle is not None
    assert registry.find(passed.bundle, passed.name) == passed
    assert registry.find(RUN, passed.name) == passed
    assert registry.find("0" * 64, passed.name) is None


def test_registering_is_idempotent_and_completes_an_interrupted_one(
    server: Server, registry: ModelRegistry, passed: Lineage
) -> None:
    server.fail_path = "/artifacts"
    with pytest.raises(RegistryError, match="database is down"):
        registry.register(passed)
    server.fail_path = ""
    assert registry.register(passed) == registry.register(passed) == Version("1", "1")
    assert [len(rows) for rows in server.tables.values()] == [1, 1, 1]


def test_two_runs_are_versions_of_one_model(registry: ModelRegistry, passed: Lineage) -> None:
    registry.register(passed)
    other = passed.model_copy(update={"run": RUN.replace("0", "f"), "bundle": "f" * 64})
    assert registry.register(other) == Version("1", "2")


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("500", "database is down"),
        ("slow", "timed out"),
        ("html", "v1alpha3"),
        ("array", "200"),
        ("down", "Connection refused"),
    ],
)
def test_failing_registry_is_one_warning_and_a_command(
    server: Server,
    passed: Lineage,
    fault: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", (0.2, 0.2))
    server.fault = fault
    url = f"http://127.0.0.1:{free_port()}" if fault == "down" else server.url
    assert register_verdict(passed, url, "build/run") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert problem in line
    assert line.endswith(f"grocer lineage --register build/run --set registry.address={url}")
    with pytest.raises(RegistryError, match=problem):
        ModelRegistry(url).find("0" * 64, "grocer")


@pytest.mark.parametrize("variable", ["MODEL_REGISTRY_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH"])
def test_token_is_sent(
    server: Server, passed: Lineage, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "header.payload.signature"
    monkeypatch.delenv("MODEL_REGISTRY_TOKEN", raising=False)
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(RegistryError, match=r"403.*MODEL_REGISTRY_TOKEN.*KF_PIPELINES_SA_TOKEN"):
        ModelRegistry(server.url).register(passed)
    file = tmp_path / "token"
    file.write_text(f"{server.token}\n")
    monkeypatch.setenv(variable, server.token if "SA" not in variable else str(file))
    assert ModelRegistry(server.url).register(passed) == Version("1", "1")
    file.write_text("renewed\n")
    server.token = "renewed" if "SA" in variable else server.token
    assert passed.bundle is not None
    assert ModelRegistry(server.url).find(passed.bundle, passed.name) == passed


@pytest.mark.parametrize("content", ["", "two words", "té", "a\nb", None])
def test_invalid_token_is_one_line_without_the_token(
    server: Server,
    passed: Lineage,
    content: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    monkeypatch.delenv("MODEL_REGISTRY_TOKEN", raising=False)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    assert register_verdict(passed, server.url, "build/run") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert f"KF_PIPELINES_SA_TOKEN_PATH={file}" in line
    assert not content or content not in line
    assert not server.requests


def test_nothing_is_registered_without_an_address(
    passed: Lineage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert register_verdict(passed, None, "build/run") is None
    assert not capsys.readouterr().out


def test_version_of_another_program_is_rejected(
    server: Server, registry: ModelRegistry, passed: Lineage
) -> None:
    registry.register(passed)
    del server.versions[0]["customProperties"]["accuracy"]
    with pytest.raises(RegistryError, match="accuracy"):
        registry.find(RUN, passed.name)
    server.versions[0]["customProperties"]["x"] = {"metadataType": "MetadataStructValue"}
    with pytest.raises(RegistryError, match="another type"):
        registry.find(RUN, passed.name)
