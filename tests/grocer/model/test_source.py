"""Base models: found, downloaded, converted and verified as configured."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from grocer.config.recipes import recipe
from grocer.config.stages import BaseConfig
from grocer.errors import ConfigError, ModelError
from grocer.io.atomic import file_digest
from grocer.model.source import base_digest, find_base


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "copy")


def test_local_base_has_a_digest_of_its_content(base: Path, copy: Path) -> None:
    directory, reference = find_base(BaseConfig(source=str(copy)))
    assert directory == copy
    assert reference.digest == base_digest(base)
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert base_digest(copy) != reference.digest


@pytest.mark.parametrize(
    "source", ["/no/such/base", "./none", "llama", "a/b/c", "./none.gguf", "/no/such.gguf"]
)
def test_unknown_source_is_rejected(source: str) -> None:
    with pytest.raises(ModelError, match="no such directory or GGUF file"):
        find_base(BaseConfig(source=source))


def test_base_on_s3_is_downloaded_once_per_version(
    s3_environment: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path / "cache"))
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bases")
    for path in base.iterdir():
        client.upload_file(str(path), "bases", f"tiny/{path.name}")
    directory, reference = find_base(BaseConfig(source="s3://bases/tiny"))
    assert reference.digest == base_digest(base)
    assert find_base(BaseConfig(source="s3://bases/tiny"))[0] == directory
    config = (base / "config.json").read_bytes() + b"\n"
    client.put_object(Bucket="bases", Key="tiny/config.json", Body=config)
    assert find_base(BaseConfig(source="s3://bases/tiny"))[0] != directory
    for missing in ("s3://bases/none", "s3://no-such-bucket/tiny"):
        with pytest.raises(ModelError, match=rf"base\.source.{{1,14}}{missing}"):
            find_base(BaseConfig(source=missing))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            errors.GatedRepoError,
            r"access is gated: accept its licence .* environment variable HF_TOKEN to a token",
        ),
        (errors.RepositoryNotFoundError, r"no such model on the Hub, or it is private"),
        (errors.RevisionNotFoundError, r"the model has no revision main"),
        (errors.LocalEntryNotFoundError, r"cannot reach the Hub"),
        (errors.HfHubHTTPError, r"Hub request failed: no; try again"),
    ],
)
def test_hub_errors_name_the_cause(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], reason: str
) -> None:
    response = httpx.Response(403, request=httpx.Request("GET", "https://hub.example"))

    def fail(*_: Any, **__: Any) -> str:
        if error is errors.LocalEntryNotFoundError:
            raise error("offline")
        raise error("no", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    config = BaseConfig(source="meta-llama/Llama-2-7b", revision="main")
    with pytest.raises(ModelError, match=rf"base.source=meta-llama/Llama-2-7b: {reason}"):
        find_base(config)


def test_hub_token_comes_from_the_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = SimpleNamespace(token=None)

    def download(source: str, token: str | None, **_: Any) -> str:
        captured.token = token
        return str(base)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("HF_TOKEN", "from the Secret")
    find_base(BaseConfig(source="owner/name"))
    assert captured.token == "from the Secret"


def test_token_in_the_configuration_is_rejected_and_not_echoed() -> None:
    with pytest.raises(ConfigError) as caught:
        recipe("tiny").with_settings(["base.token_env=hf_AbCdEf"])
    assert "base.token_env" in str(caught.value)
    assert "hf_AbCdEf" not in str(caught.value)


def test_directory_without_config_or_safetensors_is_rejected(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no \*\.safetensors; other weight formats"):
        base_digest(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"it has no config.json"):
        base_digest(copy)


def test_digest_of_a_hub_blob_is_its_name(copy: Path, tmp_path: Path) -> None:
    """The Hub's cache names a large file by its SHA-256, so 13 GB need no second reading."""
    digest = base_digest(copy)
    blob = tmp_path / file_digest(copy / "model.safetensors")
    shutil.move(copy / "model.safetensors", blob)
    (copy / "model.safetensors").symlink_to(blob)
    assert base_digest(copy) == digest
