"""`grocer verify`: one screen about a valid bundle, one line about another."""

from pathlib import Path

import pytest

from grocer.io.atomic import file_digest
from grocer.release.trust import VARIABLE
from pipelines.cli.main import execute
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.signing_keys import make_key, sign_bundle


@pytest.fixture(autouse=True)
def no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--key` sets the variable: restore it."""
    monkeypatch.setenv(VARIABLE, "")


def test_verify_shows_digest_signer_decision_base_and_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path)
    private, public = make_key(tmp_path / "keys")
    sign_bundle(bundle.path, private)
    assert execute(["verify", str(bundle.path), "--key", str(public)]) == 0
    output = capsys.readouterr().out
    evaluation = bundle.manifest.evaluation
    for text in (
        bundle.digest,
        "valid: key",
        "release.pem",
        evaluation.digests.splits,
        "0123456789abcdef",
        *(reason.sentence[:40] for reason in bundle.manifest.decision.reasons),
    ):
        assert text in output
    assert len(output.splitlines()) < 40


def test_verify_tells_whether_a_signature_was_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path).path
    assert execute(["verify", str(bundle)]) == 0
    assert "Signature    none" in capsys.readouterr().out
    sign_bundle(bundle, make_key(tmp_path / "keys")[0])
    assert execute(["verify", str(bundle)]) == 0
    assert "not verified" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "classify", "run"])
def test_commands_reject_a_bundle_that_is_not_signed_by_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    bundle = make_bundle(tmp_path, strategy="linear").path
    sign_bundle(bundle, make_key(tmp_path / "keys", "other")[0])
    _, public = make_key(tmp_path / "keys", "release")
    (tmp_path / "in.csv").write_text("product_name\nMilk\n")
    before = file_digest(bundle / "bundle.json")
    arguments = {
        "verify": [str(bundle)],
        "classify": [str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--bundle", str(bundle)],
        "run": ["--data", str(tmp_path), "--out", str(tmp_path / "o"), "--champion", str(bundle)],
    }[command]
    assert execute([command, *arguments, "--key", str(public)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no trusted signature" in line
    assert "release.pem" in line
    assert not (tmp_path / "out.csv").exists()
    assert file_digest(bundle / "bundle.json") == before
