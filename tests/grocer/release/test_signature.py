"""A signature is about all files of a bundle, and only that of a trusted signer is valid."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from grocer.errors import BundleError, ConfigError
from grocer.release.bundle import load_bundle
from grocer.release.signature import check_key, sign
from grocer.release.trust import Trust
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.signing_keys import make_certificate, make_key, sign_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path).path


def package(action: str, kind: str, bundle: Path, *options: object) -> int:
    """Run the package's own command; return its exit code."""
    arguments = [action, kind, bundle, "--signature", bundle / "model.sig", *options]
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, check=False).returncode


@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_command_of_the_package_accepts_the_signature(
    bundle: Path, tmp_path: Path, kind: str
) -> None:
    private, public = (make_key if kind == "key" else make_certificate)(tmp_path / "keys")
    sign_bundle(bundle, private)
    option = "--public_key" if kind == "key" else "--certificate_chain"
    assert package("verify", kind, bundle, option, public) == 0
    (bundle / "labels.json").write_text("[]")
    assert package("verify", kind, bundle, option, public) == 1


@pytest.mark.parametrize("ignored", [None, "labels.json"])
def test_signature_of_the_package_is_accepted_if_it_ignores_no_file(
    bundle: Path, tmp_path: Path, ignored: str | None
) -> None:
    """A bundle can also be signed by hand, for example with a key in a hardware module."""
    private, public = make_key(tmp_path / "keys")
    options = ["--ignore-paths", bundle / ignored] if ignored else []
    assert package("sign", "key", bundle, *options, "--private_key", private) == 0
    if ignored:
        with pytest.raises(BundleError, match="signature of another bundle"):
            load_bundle(bundle, trust=Trust.read(public))
    else:
        assert "release.pem" in str(load_bundle(bundle, trust=Trust.read(public)).signer)


@pytest.mark.parametrize(
    ("days", "ca_days"), [((-3, -1), 2), ((1, 3), 5), ((-3, 1), -1)], ids=["old", "new", "old CA"]
)
def test_certificate_that_is_not_valid_now_is_rejected(
    bundle: Path, tmp_path: Path, days: tuple[int, int], ca_days: int
) -> None:
    private, trusted = make_certificate(tmp_path / "keys", days=days, ca_days=ca_days)
    sign_bundle(bundle, private)
    with pytest.raises(BundleError, match=r"certificate CN=.* is valid from .* to .* only"):
        load_bundle(bundle, trust=Trust.read(trusted))


@pytest.mark.parametrize("intermediate", [False, True])
def test_certificate_of_a_trusted_authority_is_accepted(
    bundle: Path, tmp_path: Path, intermediate: bool
) -> None:
    private, trusted = make_certificate(tmp_path / "keys", intermediate=intermediate)
    sign_bundle(bundle, private)
    assert "CN=ca signer" in str(load_bundle(bundle, trust=Trust.read(trusted)).signer)


def test_certificate_of_another_authority_is_rejected(bundle: Path, tmp_path: Path) -> None:
    private, _ = make_certificate(tmp_path / "keys", name="one")
    _, other = make_certificate(tmp_path / "keys", name="other")
    sign_bundle(bundle, private)
    with pytest.raises(BundleError, match=r"model\.sig is not by other\.pem"):
        load_bundle(bundle, trust=Trust.read(other))


def test_key_is_read_from_an_environment_variable(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = make_key(tmp_path / "keys")
    monkeypatch.setenv("RELEASE_KEY", private.read_text())
    sign_bundle(bundle, Path("env:RELEASE_KEY"))
    assert load_bundle(bundle, trust=Trust.read(public)).signer is not None


@pytest.mark.parametrize("key", ["env:NOT_SET", "absent.pem", "garbage.pem", "rsa.pem"])
def test_unusable_signing_key_is_reported_with_the_setting(tmp_path: Path, key: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    (tmp_path / "garbage.pem").write_text("no key")
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "rsa.pem").write_bytes(pem)
    name = key if ":" in key else str(tmp_path / key)
    for use in (partial(sign, tmp_path, {}), check_key):
        with pytest.raises(ConfigError, match=r"deploy\.signing_key"):
            use(name)
    assert not (tmp_path / "model.sig").exists()
