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


@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_command_of_the_package_accepts_the_signature(tmp_path: Path, kind: str) -> None:
    bundle = make_bundle(tmp_path).path
    private, public = (make_key if kind == "key" else make_certificate)(tmp_path / "keys")
    sign_bundle(bundle, private)
    option = "--public_key" if kind == "key" else "--certificate_chain"
    command = ["verify", kind, str(bundle), "--signature", str(bundle / "model.sig")]

    def run() -> subprocess.CompletedProcess[str]:
        arguments = [*command, option, str(public)]
        return subprocess.run(
            [sys.executable, "-m", "model_signing", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    (bundle / "labels.json").write_text("[]")
    assert run().returncode == 1


def test_signature_of_the_package_is_accepted(tmp_path: Path) -> None:
    """A bundle can also be signed by hand, for example with a key in a hardware module."""
    bundle = make_bundle(tmp_path).path
    private, public = make_key(tmp_path / "keys")
    command = ["sign", "key", str(bundle), "--signature", str(bundle / "model.sig")]
    subprocess.run(
        [sys.executable, "-m", "model_signing", *command, "--private_key", str(private)], check=True
    )
    assert "release.pem" in str(load_bundle(bundle, trust=Trust.read(public)).signer)


def test_signature_that_ignores_a_file_is_rejected(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path).path
    private, public = make_key(tmp_path / "keys")
    command = ["sign", "key", str(bundle), "--signature", str(bundle / "model.sig")]
    command += ["--ignore-paths", str(bundle / "labels.json"), "--private_key", str(private)]
    subprocess.run([sys.executable, "-m", "model_signing", *command], check=True)
    with pytest.raises(BundleError, match="signature of another bundle"):
        load_bundle(bundle, trust=Trust.read(public))


@pytest.mark.parametrize(
    ("days", "ca_days"), [((-3, -1), 2), ((1, 3), 5), ((-3, 1), -1)], ids=["old", "new", "old CA"]
)
def test_certificate_that_is_not_valid_now_is_rejected(
    tmp_path: Path, days: tuple[int, int], ca_days: int
) -> None:
    bundle = make_bundle(tmp_path).path
    private, trusted = make_certificate(tmp_path / "keys", days=days, ca_days=ca_days)
    sign_bundle(bundle, private)
    with pytest.raises(BundleError, match=r"certificate CN=.* is valid from .* to .* only"):
        load_bundle(bundle, trust=Trust.read(trusted))


@pytest.mark.parametrize("intermediate", [False, True])
def test_certificate_of_a_trusted_authority_is_accepted(tmp_path: Path, intermediate: bool) -> None:
    bundle = make_bundle(tmp_path).path
    private, trusted = make_certificate(tmp_path / "keys", intermediate=intermediate)
    sign_bundle(bundle, private)
    assert "CN=ca signer" in str(load_bundle(bundle, trust=Trust.read(trusted)).signer)


def test_certificate_of_another_authority_is_rejected(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path).path
    private, _ = make_certificate(tmp_path / "keys", name="one")
    _, other = make_certificate(tmp_path / "keys", name="other")
    sign_bundle(bundle, private)
    with pytest.raises(BundleError, match=r"model\.sig is not by other\.pem"):
        load_bundle(bundle, trust=Trust.read(other))


def test_key_is_read_from_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path)
    private, public = make_key(tmp_path / "keys")
    monkeypatch.setenv("RELEASE_KEY", private.read_text())
    sign_bundle(bundle.path, Path("env:RELEASE_KEY"))
    assert load_bundle(bundle.path, trust=Trust.read(public)).signer is not None


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
