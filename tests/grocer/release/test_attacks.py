"""A bundle that anybody but a trusted signer has changed is refused before anything is loaded.

The attacker can write every file and name the directory as he likes, and knows all formats. Each
attack is tried naively and, where it makes a difference, with all digests updated.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from grocer.errors import BundleError
from grocer.inference.classifier import load_for_serving
from grocer.io import atomic
from grocer.io.atomic import read_json
from grocer.release import bundle as bundle_module
from grocer.release.bundle import LoadedBundle, load_bundle
from grocer.release.manifest import MANIFEST
from grocer.release.provenance import PROVENANCE
from grocer.release.signature import MAX_SIGNATURE_BYTES, SIGNATURE
from grocer.release.trust import VARIABLE, Trust
from pipelines.cli.main import execute
from tests.fixtures.artifacts import make_bundle, rename_to_digest
from tests.fixtures.signing_keys import make_key, sign_bundle

FILES = (
    "MODEL_CARD.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "base.json",
    "bundle.json",
    "labels.json",
    "known_products.npy",
    "linear.npz",
    "model.sig",
    "provenance.json",
    "template.json",
    "tokenizer.json",
)
Attack = Callable[[Path], Path | None]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the signed bundle, another signed one, and the keys."""
    root = tmp_path_factory.mktemp("release")
    private, _ = make_key(root / "keys")
    for name, strategy in (("good", "ensemble"), ("other", "linear")):
        path = make_bundle(root / name, strategy=strategy).path
        sign_bundle(path, private)
        shutil.move(path, root / path.name)
        (root / name).joinpath("digest").write_text(path.name)
    return root


@pytest.fixture
def bundle(release: Path, tmp_path: Path) -> Path:
    """A copy of the signed bundle."""
    digest = (release / "good" / "digest").read_text()
    return Path(shutil.copytree(release / digest, tmp_path / digest))


@pytest.fixture
def key(release: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, "")  # restored after `--key` was set
    return release / "keys" / "release.pem"


def refused(bundle: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line that `grocer verify` prints; `load_bundle` must refuse it too."""
    with pytest.raises(BundleError):
        load_bundle(bundle, trust=Trust.read(key))
    capsys.readouterr()
    assert execute(["verify", str(bundle), "--key", str(key)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert len(line) < 1000
    return line


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = read_json(path)
    change(content)
    path.write_text(json.dumps(content))


def test_signed_bundle_is_accepted(bundle: Path, key: Path) -> None:
    checked = load_bundle(bundle, trust=Trust.read(key))
    assert checked.signer is not None
    assert {path.name for path in bundle.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_flipped_byte_is_refused(
    bundle: Path, key: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    line = refused(bundle, key, capsys)
    assert name in line or name == MANIFEST


def swap_adapter(bundle: Path) -> Path:
    (bundle / "adapter_model.safetensors").write_bytes(b"other weights")
    return rename_to_digest(bundle)


def edit_decision(bundle: Path) -> Path:
    edit(bundle / MANIFEST, lambda manifest: manifest["decision"]["policy"].update(max_ece=0.9))
    return rename_to_digest(bundle)


def edit_evaluation(bundle: Path) -> Path:
    def better(manifest: dict) -> None:
        manifest["evaluation"]["metrics"]["test"]["accuracy"] = 0.99

    edit(bundle / MANIFEST, better)
    return rename_to_digest(bundle)


def replace_labels(bundle: Path) -> Path:
    (bundle / "labels.json").write_text('["produce", "bakery", "dairy eggs"]')
    return rename_to_digest(bundle)


def edit_provenance(bundle: Path) -> Path:
    def other_run(statement: dict) -> None:
        statement["predicate"]["runDetails"]["metadata"]["invocationId"] = "another run"

    edit(bundle / PROVENANCE, other_run)
    return rename_to_digest(bundle)


def list_a_path_outside(bundle: Path) -> Path:
    (bundle.parent / "outside").write_bytes(b"x")

    def list_it(manifest: dict) -> None:
        manifest["files"]["../outside"] = atomic.file_digest(bundle.parent / "outside")
        manifest["sizes"]["../outside"] = 1

    edit(bundle / MANIFEST, list_it)
    digests = {**read_json(bundle / MANIFEST)["files"]}
    digests[MANIFEST] = atomic.file_digest(bundle / MANIFEST)
    return bundle.rename(bundle.with_name(atomic.tree_digest(digests)))


def add_a_listed_pickle(bundle: Path) -> Path:
    (bundle / "base").mkdir()
    (bundle / "base" / "pytorch_model.bin").write_bytes(pickle.dumps(object))
    return rename_to_digest(bundle)


@pytest.mark.parametrize(
    "forge",
    [
        swap_adapter,
        edit_decision,
        edit_evaluation,
        edit_provenance,
        replace_labels,
        list_a_path_outside,
        add_a_listed_pickle,
    ],
)
def test_forgery_with_consistent_digests_is_refused(
    bundle: Path, key: Path, capsys: pytest.CaptureFixture[str], forge: Callable[[Path], Path]
) -> None:
    refused(forge(bundle), key, capsys)


@pytest.mark.parametrize(
    "forge", [swap_adapter, edit_decision, edit_evaluation, edit_provenance, replace_labels]
)
def test_forgery_signed_by_the_attacker_is_refused(
    bundle: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    forge: Callable[[Path], Path],
) -> None:
    forged = forge(bundle)
    sign_bundle(forged, make_key(tmp_path / "keys", "attacker")[0])
    assert "no trusted signature" in refused(forged, key, capsys)


def remove_signature(bundle: Path, other: Path) -> None:
    (bundle / SIGNATURE).unlink()


def take_signature_of_another_bundle(bundle: Path, other: Path) -> None:
    shutil.copyfile(other / SIGNATURE, bundle / SIGNATURE)


def sign_with_another_key(bundle: Path, other: Path) -> None:
    sign_bundle(bundle, make_key(bundle.parent / "attacker")[0])


def empty_signature(bundle: Path, other: Path) -> None:
    (bundle / SIGNATURE).write_bytes(b"")


def nested_signature(bundle: Path, other: Path) -> None:
    (bundle / SIGNATURE).write_text("[" * 200_000 + "]" * 200_000)


def signature_of_other_types(bundle: Path, other: Path) -> None:
    edit(bundle / SIGNATURE, lambda content: content.update(dsseEnvelope=[1], mediaType=None))


def signature_without_statement(bundle: Path, other: Path) -> None:
    edit(bundle / SIGNATURE, lambda content: content["dsseEnvelope"].update(signatures=[]))


def huge_signature(bundle: Path, other: Path) -> None:
    os.truncate(bundle / SIGNATURE, MAX_SIGNATURE_BYTES + 1)


def linked_signature(bundle: Path, other: Path) -> None:
    shutil.move(bundle / SIGNATURE, bundle.parent / "elsewhere")
    (bundle / SIGNATURE).symlink_to(bundle.parent / "elsewhere")


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (remove_signature, "is not signed"),
        (take_signature_of_another_bundle, "is the signature of another bundle"),
        (sign_with_another_key, "no trusted signature"),
        (empty_signature, "no trusted signature"),
        (nested_signature, "no trusted signature"),
        (signature_of_other_types, "no trusted signature"),
        (signature_without_statement, "no trusted signature"),
        (huge_signature, f"expected at most {MAX_SIGNATURE_BYTES:,}"),
        (linked_signature, "expected a regular file"),
    ],
)
def test_bundle_without_its_own_trusted_signature_is_refused(
    release: Path,
    bundle: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
    attack: Callable[[Path, Path], None],
    reason: str,
) -> None:
    attack(bundle, release / (release / "other" / "digest").read_text())
    assert reason in refused(bundle, key, capsys)


def link_file(bundle: Path) -> None:
    shutil.move(bundle / "labels.json", bundle.parent / "labels.json")
    (bundle / "labels.json").symlink_to(bundle.parent / "labels.json")


def add_file(bundle: Path) -> None:
    (bundle / "adapter_model.bin").write_bytes(pickle.dumps(object))


def add_fifo(bundle: Path) -> None:
    os.mkfifo(bundle / "tokenizer.model")


def grow_adapter(bundle: Path) -> None:
    os.truncate(bundle / "adapter_model.safetensors", 2**31)


def grow_manifest(bundle: Path) -> None:
    os.truncate(bundle / MANIFEST, 2**26)


@pytest.mark.parametrize("attack", [link_file, add_file, add_fifo, grow_adapter, grow_manifest])
def test_unexpected_file_is_refused_without_reading_it(
    bundle: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    attack: Callable[[Path], None],
) -> None:
    attack(bundle)
    read: list[int] = []

    def measured(path: Path) -> str:
        read.append(path.stat().st_size)
        return atomic.file_digest(path)

    monkeypatch.setattr(bundle_module, "file_digest", measured)
    refused(bundle, key, capsys)
    assert sum(read) < 10**7


def loaded(tmp_path: Path) -> LoadedBundle:
    return load_bundle(make_bundle(tmp_path, strategy="linear").path)


def test_bundle_that_is_not_changed_is_loaded(tmp_path: Path) -> None:
    assert load_for_serving(loaded(tmp_path)).linear is not None


@pytest.mark.parametrize("restore", [False, True])
def test_file_changed_between_verification_and_load_is_refused(
    tmp_path: Path, restore: bool
) -> None:
    """Also if the verified content is back when the model has been loaded."""
    bundle = loaded(tmp_path)
    path = bundle.path / "labels.json"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(content if restore else content + b" ")
    os.utime(path, ns=times)
    with pytest.raises(BundleError, match="modified while it was loaded"):
        load_for_serving(bundle)


@pytest.mark.parametrize("name", ["linear.npz", "labels.json", "bundle.json"])
def test_pickle_is_never_executed(tmp_path: Path, name: str) -> None:
    """Not even if the verification is left out."""
    bundle = loaded(tmp_path)
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    (bundle.path / name).write_bytes(pickle.dumps(Payload()))
    with suppress(Exception):
        load_for_serving(bundle)
    assert not marker.exists()
