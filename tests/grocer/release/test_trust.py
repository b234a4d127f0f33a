"""The platform decides which signers and which gate policy a bundle needs."""

import json
from pathlib import Path

import pytest

from grocer.config.recipes import tiny
from grocer.errors import BundleError, ConfigError
from grocer.gate.rules import decide
from grocer.release import trust
from grocer.release.bundle import load_bundle, write_bundle
from grocer.release.trust import VARIABLE, Trust
from tests.fixtures.artifacts import make_bundle, write_artifacts
from tests.fixtures.evaluations import evaluation, parse, policy
from tests.fixtures.signing_keys import make_certificate, make_key, sign_bundle

LENIENT = ["gate.min_accuracy=0.1", "gate.min_test_products=1", "gate.max_ece=0.9"]


def write_trust(folder: Path, **limits: object) -> tuple[Path, Path]:
    """Write a trusted key and a floor; return the folder and the signing key."""
    private, public = make_key(folder.with_name("keys"))
    folder.mkdir(exist_ok=True)
    public.rename(folder / public.name)
    (folder / "gate.json").write_text(json.dumps(limits))
    return folder, private


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({"min_accuracy": 0.9}, r"accuracy: .* 0\.877 \(minimum 0\.900\)"),
        ({"min_test_products": 301}, r"test_products: .* 300 \(minimum 301\)"),
        ({"max_ece": 0.001}, r"ece: .*\(maximum 0\.001\)"),
        ({"confidence": 0.99}, r"confidence: .* 0\.95 \(minimum 0\.99\)"),
    ],
)
def test_bundle_with_a_lowered_policy_is_rejected_by_the_floor(
    tmp_path: Path, limits: dict[str, object], rule: str
) -> None:
    bundle = make_bundle(tmp_path, tiny().with_settings(LENIENT)).path
    trust, key = write_trust(tmp_path / "trust", **limits)
    sign_bundle(bundle, key)
    with pytest.raises(BundleError, match=rf"platform's gate policy .*gate\.json.* {rule}"):
        load_bundle(bundle, trust=Trust.read(trust))


@pytest.mark.parametrize(
    ("floor", "settings", "passed", "problem"),
    [(0.9, LENIENT, True, "accuracy: "), (0.1, [], False, "gate failed")],
)
def test_bundle_is_not_written_below_the_floor_or_the_policy_of_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    floor: float,
    settings: list[str],
    passed: bool,
    problem: str,
) -> None:
    """The deploy step fails before anything is published."""
    trust, key = write_trust(tmp_path / "trust", min_accuracy=floor)
    monkeypatch.setenv(VARIABLE, str(trust))
    config = tiny().with_settings(settings)
    artifacts = write_artifacts(tmp_path / "artifacts", config, passed=passed)
    with pytest.raises(BundleError, match=problem):
        write_bundle(**artifacts, config=config, root=tmp_path, signing_key=str(key))


def test_keys_that_the_floor_lacks_are_those_of_the_run(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, tiny().with_settings(["gate.min_accuracy=0.2"])).path
    trust, key = write_trust(tmp_path / "trust", min_test_products=300)
    sign_bundle(bundle, key)
    assert load_bundle(bundle, trust=Trust.read(trust)).signer is not None


def test_floor_can_forbid_the_margin_of_the_champion(tmp_path: Path) -> None:
    measured = parse(evaluation(champion=(6, 5)))
    run = policy(champion_margin=0.05, champion_margin_reason="newer data")
    assert decide(measured, run).passed
    free, _ = write_trust(tmp_path / "free", min_accuracy=0.8)
    Trust.read(free).require_floor(measured, run)
    trust = Trust.read(write_trust(tmp_path / "trust", champion_margin=None)[0])
    with pytest.raises(BundleError, match="champion: "):
        trust.require_floor(measured, run)


def test_bundle_of_any_trusted_signer_is_accepted(tmp_path: Path) -> None:
    """So that a key can be replaced: trust the new one, sign with it, remove the old one."""
    bundle = make_bundle(tmp_path).path
    old, _ = make_key(tmp_path / "trust", "old")
    new, _ = make_key(tmp_path / "trust", "new")
    chain, _ = make_certificate(tmp_path / "trust", name="ca")
    for key in (old, new, chain):
        key.rename(tmp_path / key.name)
    (tmp_path / "trust" / "..data").symlink_to(tmp_path / "trust")
    trust = Trust.read(tmp_path / "trust")
    for key, signer in (("old.key", "old.pem"), ("new.key", "new.pem"), ("ca.key", "CN=ca signer")):
        sign_bundle(bundle, tmp_path / key)
        assert signer in str(load_bundle(bundle, trust=trust).signer)
    (tmp_path / "trust" / "old.pem").unlink()
    sign_bundle(bundle, tmp_path / "old.key")
    with pytest.raises(BundleError, match="no trusted signature"):
        load_bundle(bundle, trust=Trust.read(tmp_path / "trust"))


def test_trust_of_the_platform_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path).path
    private, public = make_key(tmp_path / "keys")
    assert load_bundle(bundle).signer is None
    monkeypatch.setenv(VARIABLE, str(public))
    with pytest.raises(BundleError, match="is not signed"):
        load_bundle(bundle)
    sign_bundle(bundle, private)
    assert load_bundle(bundle).signer is not None


def test_empty_default_directory_requires_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes mounts an optional ConfigMap that does not exist as an empty directory."""
    bundle = make_bundle(tmp_path).path
    (tmp_path / "trust" / "..2026_11_30").mkdir(parents=True)
    monkeypatch.setattr(trust, "DIRECTORY", tmp_path / "trust")
    assert load_bundle(bundle).signer is None
    make_key(tmp_path / "trust")[0].unlink()
    with pytest.raises(BundleError, match="is not signed"):
        load_bundle(bundle)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trust" / "..2026_11_30"))
    with pytest.raises(ConfigError, match="no trusted key found"):
        load_bundle(bundle)


def test_signature_without_trusted_keys_is_not_verified(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path).path
    (bundle / "model.sig").write_text("anything")
    assert load_bundle(bundle, trust=Trust()).signer is None


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "no trusted key found"),
        ({"gate.json": "{}"}, "no trusted key found"),
        ({"release.pub": "x"}, r"release\.pub: unknown file"),
        ({"release.pem": "x"}, "expected one EC public key, or CA certificates"),
        ({"gate.json": '{"min_acuracy": 1}'}, r"gate\.json: min_acuracy"),
        ({"gate.json": '{"min_accuracy": "high"}'}, r"gate\.json: min_accuracy"),
        ({"sigstore.json": '{"identity": "me"}'}, "identity and issuer"),
    ],
)
def test_invalid_trust_is_reported_with_its_file(
    tmp_path: Path, files: dict[str, str], problem: str
) -> None:
    (tmp_path / "trust").mkdir()
    for name, text in files.items():
        (tmp_path / "trust" / name).write_text(text)
    with pytest.raises(ConfigError, match=problem):
        Trust.read(tmp_path / "trust")


def test_private_keys_and_several_keys_in_one_file_are_not_trusted(tmp_path: Path) -> None:
    private, public = make_key(tmp_path)
    with pytest.raises(ConfigError, match="one public key"):
        Trust.read(private)
    public.write_bytes(public.read_bytes() * 2)
    with pytest.raises(ConfigError, match="one file for each key"):
        Trust.read(public)
    with pytest.raises(ConfigError, match="absent: no trusted key found"):
        Trust.read(tmp_path / "absent")
