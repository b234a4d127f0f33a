"""Signatures of bundles: `model.sig`, in the format of OpenSSF Model Signing.

The signed statement lists the SHA-256 of every other file of the bundle, so the package's own
command `model_signing verify` accepts it too. Files are not read here: `load_bundle` has computed
their digests.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from grocer.errors import BundleError, ConfigError, GrocerError
from grocer.io.atomic import output_file

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from model_signing.signing import Config as Signer
    from model_signing.verifying import Config as Verifier

SIGNATURE = "model.sig"
MAX_SIGNATURE_BYTES = 1024**2
SIGSTORE = "sigstore"
_SETTING = "deploy.signing_key"
_CERTIFICATE, _PUBLIC_KEY = b"-----BEGIN CERTIFICATE-----", b"-----BEGIN PUBLIC KEY-----"


def sign(bundle: Path, digests: Mapping[str, str], key: str) -> None:
    """Write the signature of a bundle; an earlier one is replaced.

    Args:
        digests: SHA-256 of every file except the signature, by relative path.
        key: the value of `deploy.signing_key`.

    Raises:
        ConfigError: there is no such key, or it cannot be used.
        OutputError: the signature cannot be written.
    """
    with _usable_signer(key) as signer, output_file(bundle / SIGNATURE) as part:
        signer.set_hashing_config(_known_digests(digests)).sign(bundle, part)


def check_key(key: str) -> None:
    """Raise ConfigError if a key cannot sign; that of Sigstore is not tried."""
    if key != SIGSTORE:
        with _usable_signer(key):
            pass


def verify(bundle: Path, digests: Mapping[str, str], trusted: Path) -> str:
    """Verify the signature of a bundle, and return a description of its signer.

    Args:
        digests: SHA-256 of every file except the signature, by relative path.
        trusted: PEM file with a public key, or with CA certificates; or a JSON file with the
            `identity` and the `issuer` of a signer with Sigstore.

    Raises:
        BundleError: the signature is not by this signer, is expired, or is of other files.
    """
    hashing = _known_digests(digests)
    try:
        verifier, signer = _verifier(trusted, bundle / SIGNATURE)
        verifier.set_hashing_config(hashing).verify(bundle, bundle / SIGNATURE)
    except BundleError:
        raise
    # The content of a forged signature can raise anything; every error is a rejection.
    except Exception as error:
        if hashing.used:  # which is after the signature was found valid
            raise BundleError(f"{SIGNATURE} is the signature of another bundle") from error
        raise BundleError(f"{SIGNATURE} is not by {trusted.name}: {_text(error)}") from error
    return signer


def check_trusted(path: Path) -> None:
    """Raise ConfigError unless a file holds what `verify` accepts as `trusted`."""
    try:
        if path.suffix == ".json":
            if set(content := json.loads(path.read_bytes())) != {"identity", "issuer"}:
                raise ValueError(
                    f"expected the keys identity and issuer, found {', '.join(content)}"
                )
        elif not _certificates(path):
            _fingerprint(path)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: {_text(error)}; expected one EC public key, or CA certificates, in PEM"
        ) from error


@contextmanager
def _usable_signer(key: str) -> Iterator[Signer]:
    """Yield the package's configuration for a signing key; ConfigError if it cannot sign."""
    from model_signing.signing import Config

    with _key_file(key) as path:
        try:
            if key == SIGSTORE:
                token = os.environ.get("SIGSTORE_ID_TOKEN")
                signer = Config().use_sigstore_signer(
                    identity_token=token, use_ambient_credentials=token is None
                )
            elif _CERTIFICATE in path.read_bytes():
                signer = Config().use_certificate_signer(
                    private_key=path, signing_certificate=path, certificate_chain=[path]
                )
            else:
                signer = Config().use_elliptic_key_signer(private_key=path)
            yield signer
        # The package and its cryptography raise many types, also for a key of another kind.
        except Exception as error:
            if isinstance(error, GrocerError):
                raise
            raise ConfigError(
                f"{_SETTING} cannot sign: {_text(error)}; expected an unencrypted EC private key "
                "(PEM), which the certificates in the same file belong to, or the identity of "
                "Sigstore"
            ) from error


def _verifier(trusted: Path, signature: Path) -> tuple[Verifier, str]:
    """Return the verifier for a trusted file, and a description of the signer."""
    from model_signing.verifying import Config

    if trusted.suffix == ".json":
        content = json.loads(trusted.read_bytes())
        root = trusted.with_name("trust-config")
        verifier = Config().use_sigstore_verifier(
            identity=content["identity"],
            oidc_issuer=content["issuer"],
            trust_config=root if root.exists() else None,
        )
        return verifier, f"{content['identity']} ({content['issuer']})"
    if authorities := _certificates(trusted):
        signing, *others = _chain(signature)
        # The package verifies certificates at the time when the signing certificate became valid,
        # so that it would accept expired ones.
        for certificate in (signing, *others, *authorities):
            _require_valid_now(certificate)
        verifier = Config().use_certificate_verifier(certificate_chain=[trusted])
        return verifier, f"{signing.subject.rfc4514_string()} (issued by {trusted.name})"
    verifier = Config().use_elliptic_key_verifier(public_key=trusted)
    return verifier, f"key {_fingerprint(trusted)[:16]} ({trusted.name})"


def _certificates(path: Path) -> list[Certificate]:
    """Return the certificates in a PEM file; none if it has no certificate."""
    from cryptography.x509 import load_pem_x509_certificates

    content = path.read_bytes()
    return load_pem_x509_certificates(content) if _CERTIFICATE in content else []


def _fingerprint(path: Path) -> str:
    """Return the SHA-256 of the public key (DER) in a PEM file that has one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    content = path.read_bytes()
    if not content.count(b"-----BEGIN ") == content.count(_PUBLIC_KEY) == 1:
        raise ValueError("it does not hold exactly one public key; use one file for each key")
    key = serialization.load_pem_public_key(content)
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("not an EC key")
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(der).hexdigest()


def _chain(signature: Path) -> list[Certificate]:
    """Return the certificates in a signature, that of the signer first; not yet verified."""
    from cryptography.x509 import load_der_x509_certificate

    material = json.loads(signature.read_bytes())["verificationMaterial"]
    entries = material["x509CertificateChain"]["certificates"]
    return [load_der_x509_certificate(base64.b64decode(each["rawBytes"])) for each in entries]


def _require_valid_now(certificate: Certificate) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= datetime.now(UTC) <= end:
        raise BundleError(
            f"certificate {certificate.subject.rfc4514_string()} is valid from {start:%Y-%m-%d} "
            f"to {end:%Y-%m-%d} only"
        )


@contextmanager
def _key_file(key: str) -> Iterator[Path]:
    """Yield the file of a signing key; that of `env:NAME` exists only meanwhile."""
    source, _, name = key.partition(":")
    if source == "env":
        if not (content := os.environ.get(name)):
            raise ConfigError(f"{_SETTING}: the environment variable {name} is not set")
        with TemporaryDirectory() as folder:  # readable by this user only
            path = Path(folder, "key.pem")
            path.write_text(content)
            yield path
        return
    if key != SIGSTORE and not os.access(key, os.R_OK):
        raise ConfigError(f"{_SETTING}: {key}: no such file, or it is not readable")
    yield Path(key)


def _known_digests(digests: Mapping[str, str]) -> Any:
    """Return a hashing configuration of the package that takes known digests, and reads no file.

    Its attribute `used` tells whether the package asked for them.
    """
    from model_signing._hashing.hashing import Digest
    from model_signing.hashing import Config
    from model_signing.manifest import FileManifestItem, Manifest, SerializationType

    items = [
        FileManifestItem(path=PurePosixPath(name), digest=Digest("sha256", bytes.fromhex(digest)))
        for name, digest in digests.items()
    ]
    method = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE],
    }

    class Known(Config):  # type: ignore[misc]
        used = False

        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Manifest:
            self.used = True
            return Manifest(Path(model_path).name, items, SerializationType.from_args(method))

    return Known()


def _text(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
