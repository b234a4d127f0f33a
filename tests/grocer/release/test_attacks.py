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
Refused = Callable[[Path], str]


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


@pytest.fixture
def refused(key: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that checks that a bundle is refused.

    It returns the only line that `grocer verify` prints; `load_bundle` must refuse the bundle too.
    """

    def check(bundle: Path) -> str:
        with pytest.raises(BundleError):
            load_bundle(bundle, trust=Trust.read(key))
        capsys.readouterr()
        assert execute(["verify", str(bundle), "--key", str(key)]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        (line,) = output.err.splitlines()
        assert len(line) < 1000
        return line

    return check


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = read_json(path)
    change(content)
    path.write_text(json.dumps(content))


def test_signed_bundle_is_accepted(bundle: Path, key: Path) -> None:
    checked = load_bundle(bundle, trust=Trust.read(key))
    assert checked.signer is not None
    assert {path.name for path in bundle.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_flipped_byte_is_refused(bundle: Path, refused: Refused, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    line = refused(bundle)
    assert name in line or name == MANIFEST


def add(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def link(path: Path) -> None:
    """Move a file out of the bundle, and link to it."""
    moved = shutil.move(path, path.parent.with_name("elsewhere"))
    path.symlink_to(moved)


FORGERIES: dict[str, Callable[[Path], object]] = {
    "weights": lambda bundle: add(bundle / "adapter_model.safetensors", b"other weights"),
    "labels": lambda bundle: add(bundle / "labels.json", b'["produce", "bakery", "dairy eggs"]'),
    "decision": lambda bundle: edit(
        bundle / MANIFEST, lambda content: content["decision"]["policy"].update(max_ece=0.9)
    ),
    "evaluation": lambda bundle: edit(
        bundle / MANIFEST,
        lambda content: content["evaluation"]["metrics"]["test"].update(accuracy=0.99),
    ),
    "provenance": lambda bundle: edit(
        bundle / PROVENANCE,
        lambda content: content["predicate"]["runDetails"]["metadata"].update(invocationId="x"),
    ),
    "pickle": lambda bundle: add(bundle / "base/pytorch_model.bin", pickle.dumps(object)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forgery_with_consistent_digests_is_refused(
    bundle: Path, refused: Refused, tmp_path: Path, forgery: str
) -> None:
    FORGERIES[forgery](bundle)
    forged = rename_to_digest(bundle)
    refused(forged)
    sign_bundle(forged, make_key(tmp_path / "keys", "attacker")[0])
    assert "no trusted signature" in refused(forged)


def test_listed_path_outside_of_the_bundle_is_refused(bundle: Path, refused: Refused) -> None:
    (bundle.parent / "outside").write_bytes(b"x")
    manifest = read_json(bundle / MANIFEST)
    manifest["files"]["../outside"] = atomic.file_digest(bundle.parent / "outside")
    manifest["sizes"]["../outside"] = 1
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    digests = {**manifest["files"], MANIFEST: atomic.file_digest(bundle / MANIFEST)}
    refused(bundle.rename(bundle.with_name(atomic.tree_digest(digests))))


SIGNATURES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "none": (lambda path, other: path.unlink(), "is not signed"),
    "of another bundle": (
        lambda path, other: shutil.copyfile(other / SIGNATURE, path),
        "is the signature of another bundle",
    ),
    "by another key": (
        lambda path, other: sign_bundle(path.parent, make_key(other.parent / "attacker")[0]),
        "no trusted signature",
    ),
    "empty": (lambda path, other: path.write_bytes(b""), "no trusted signature"),
    "nested": (
        lambda path, other: path.write_text("[" * 200_000 + "]" * 200_000),
        "no trusted signature",
    ),
    "of other types": (
        lambda path, other: edit(path, lambda each: each.update(dsseEnvelope=[1], mediaType=None)),
        "no trusted signature",
    ),
    "without statement": (
        lambda path, other: edit(path, lambda each: each["dsseEnvelope"].update(signatures=[])),
        "no trusted signature",
    ),
    "huge": (
        lambda path, other: os.truncate(path, MAX_SIGNATURE_BYTES + 1),
        f"expected at most {MAX_SIGNATURE_BYTES:,}",
    ),
    "a link": (lambda path, other: link(path), "expected a regular file"),
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_bundle_without_its_own_trusted_signature_is_refused(
    release: Path, bundle: Path, refused: Refused, signature: str
) -> None:
    attack, reason = SIGNATURES[signature]
    attack(bundle / SIGNATURE, release / (release / "other" / "digest").read_text())
    assert reason in refused(bundle)


FILE_ATTACKS: dict[str, Callable[[Path], object]] = {
    "link": lambda bundle: link(bundle / "labels.json"),
    # It adds no file, so that no digest changes.
    "linked directory": lambda bundle: (bundle / "base").symlink_to(bundle),
    "pickle": lambda bundle: add(bundle / "adapter_model.bin", pickle.dumps(object)),
    "fifo": lambda bundle: os.mkfifo(bundle / "tokenizer.model"),
    "large adapter": lambda bundle: os.truncate(bundle / "adapter_model.safetensors", 2**31),
    "large manifest": lambda bundle: os.truncate(bundle / MANIFEST, 2**26),
}


@pytest.mark.parametrize("attack", FILE_ATTACKS)
def test_unexpected_file_is_refused_without_reading_it(
    bundle: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    FILE_ATTACKS[attack](bundle)
    read: list[int] = []

    def measured(path: Path) -> str:
        read.append(path.stat().st_size)
        return atomic.file_digest(path)

    monkeypatch.setattr(bundle_module, "file_digest", measured)
    refused(bundle)
    assert sum(read) < 10**7


def loaded(tmp_path: Path) -> LoadedBundle:
    return load_bundle(make_bundle(tmp_path, strategy="linear").path)


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
