"""The predictor serves what a trusted key has signed, and nothing else."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from grocer.errors import DeployError
from grocer.release.trust import VARIABLE
from serving.predictor.serve import serve
from serving.rollout.smoke_test import predict, running_predictor
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.signing_keys import make_key, sign_bundle

CHANGE_AFTER_VERIFICATION = """
import sys
from serving.predictor import __main__ as command, serve

verify = serve.load_bundle

def verify_and_change(path, digest):
    verified = verify(path, digest)
    (path / "linear.npz").write_bytes((path / "linear.npz").read_bytes())
    return verified

serve.load_bundle = verify_and_change
sys.exit(command.main())
"""


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that loads fast: its classifier is the linear model."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), strategy="linear").path


@pytest.fixture
def bundle(unsigned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unsigned, tmp_path / unsigned.name))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A signing key that the platform trusts."""
    private, public = make_key(tmp_path / "keys")
    monkeypatch.setenv(VARIABLE, str(public))
    return private, public


def require_rejection(bundle: Path, reason: str, **options: Any) -> None:
    with (
        pytest.raises(DeployError, match=f"exited with code 2: .*{reason}"),
        running_predictor(bundle, **options),
    ):
        pass


def test_signed_bundle_is_served(bundle: Path, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle, keys[0])
    with running_predictor(bundle) as url:
        (prediction,) = predict(url, ["Organic Milk"], bundle.name, timeout=0)
    assert prediction["department"] in ("bakery", "dairy eggs", "produce")


def test_bundle_without_a_trusted_signature_never_becomes_ready(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    require_rejection(bundle, "is not signed")
    foreign, _ = make_key(tmp_path / "other")
    sign_bundle(bundle, foreign)
    require_rejection(bundle, r"no trusted signature.*release\.pem")


def test_unsigned_bundle_is_served_with_a_warning_if_no_key_is_trusted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("serving.predictor.logs.configure", lambda: None)
    stopped = Mock(failure=None)
    monkeypatch.setattr("serving.predictor.server.Server", Mock(return_value=stopped))
    assert serve(bundle) == 0
    assert caplog.text.count("signature not verified") == 1


def test_trust_that_does_not_exist_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing mount must not turn verification off."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    require_rejection(bundle, "absent: no trusted key found")


def test_file_changed_after_verification_is_never_served(
    bundle: Path, keys: tuple[Path, Path]
) -> None:
    sign_bundle(bundle, keys[0])
    command = ("-c", CHANGE_AFTER_VERIFICATION)
    require_rejection(bundle, "modified while it was loaded", command=command)
