"""Bundles as images in an OCI registry."""

import io
import json
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from grocer.config.deployment import DeployConfig
from grocer.errors import BundleError, OutputError
from grocer.io.atomic import tree_digest, tree_digests
from grocer.release import registry
from grocer.release.bundle import LoadedBundle
from grocer.release.image import fetch_manifest
from grocer.release.manifest import MANIFEST
from grocer.release.signature import SIGNATURE
from pipelines.cli.main import execute
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.http_server import Handler, Serve
from tests.fixtures.oci_registry import (
    BINARY,
    PASSWORD,
    USER,
    OciRegistry,
    docker_registry,
    small_registry,
)
from tests.fixtures.signing_keys import make_key, sign_bundle

REPOSITORY = "team/grocer"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("ORAS_USER", "ORAS_PASS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(
    params=[
        "small",
        pytest.param("docker", marks=pytest.mark.skipif(not BINARY, reason="not installed")),
    ]
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OciRegistry]:
    chosen = small_registry() if request.param == "small" else docker_registry(tmp_path / "oci")
    with chosen as running:
        yield running


@pytest.fixture
def store(server: OciRegistry) -> str:
    return f"oci://{server.host}/{REPOSITORY}"


@pytest.fixture
def uri(bundle: LoadedBundle, store: str) -> str:
    """The address of the published bundle."""
    return registry.publish(bundle, store)


def test_manifest_alone_is_read_without_the_files(bundle: LoadedBundle, uri: str) -> None:
    assert fetch_manifest(uri, bundle.digest, "--champion") == bundle.manifest
    with pytest.raises(BundleError, match="was modified"):
        fetch_manifest(uri, "0" * 64, "--champion")


def layers(server: OciRegistry, tag: str) -> list[str]:
    image = json.loads(server.manifest(REPOSITORY, tag))
    return [layer["digest"] for layer in image["layers"]]


def entry(name: str, content: bytes | None = b"", **fields: object) -> bytes:
    """An entry of a tar file; without content, a directory."""
    info = tarfile.TarInfo(name)
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    info.size = len(content or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    data = content or b""
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def test_fetched_bundle_is_identical(
    bundle: LoadedBundle, store: str, uri: str, tmp_path: Path
) -> None:
    assert DeployConfig(store=store).store == store
    assert uri == f"{store}:{bundle.digest}"
    fetched = registry.open_bundle(uri, tmp_path / "fetched")
    assert fetched.digest == bundle.digest
    assert tree_digests(fetched.path) == tree_digests(bundle.path)


@pytest.mark.usefixtures("uri")
def test_image_has_the_layout_that_kserve_reads(bundle: LoadedBundle, server: OciRegistry) -> None:
    image = json.loads(server.manifest(REPOSITORY, bundle.digest))
    config = json.loads(server.blob(REPOSITORY, image["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == layers(server, bundle.digest)
    (layer,) = layers(server, bundle.digest)
    with tarfile.open(fileobj=io.BytesIO(server.blob(REPOSITORY, layer))) as archive:
        members = archive.getmembers()
        files = {member.name: member for member in members if member.isfile()}
        assert set(files) == {f"models/{name}" for name in tree_digests(bundle.path)}
        for member in members:
            assert member.isfile() or member.isdir()
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.mode == (0o755 if member.isdir() else 0o644)


@pytest.mark.usefixtures("uri")
def test_publishing_again_changes_nothing(
    bundle: LoadedBundle, server: OciRegistry, store: str
) -> None:
    image = server.manifest(REPOSITORY, bundle.digest)
    server.requests.clear()
    registry.publish(bundle, store)
    assert server.manifest(REPOSITORY, bundle.digest) == image
    assert not [each for each in server.requests if each.startswith(("PUT", "POST"))]


def test_signature_is_a_layer_of_its_own_and_can_be_renewed(
    server: OciRegistry, store: str, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundles")
    seen = []
    for name in ("first", "second"):
        sign_bundle(bundle.path, make_key(tmp_path / name)[0])
        uri = registry.publish(bundle, store)
        fetched = registry.open_bundle(uri, tmp_path / f"fetched-{name}")
        written = (fetched.path / SIGNATURE).read_bytes()
        assert written == (bundle.path / SIGNATURE).read_bytes()
        seen.append(layers(server, bundle.digest))
    assert [len(each) for each in seen] == [2, 2]
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_other_image_under_the_tag_is_not_overwritten(
    bundle: LoadedBundle, server: OciRegistry, store: str
) -> None:
    server.push(REPOSITORY, bundle.digest, b"somebody else's")
    before = server.manifest(REPOSITORY, bundle.digest)
    with pytest.raises(OutputError, match="already exists with other files"):
        registry.publish(bundle, store)
    assert server.manifest(REPOSITORY, bundle.digest) == before


@pytest.mark.parametrize("offset", [3, 600, -5000, None])
def test_tampered_or_truncated_layer_is_refused(
    bundle: LoadedBundle, server: OciRegistry, uri: str, tmp_path: Path, offset: int | None
) -> None:
    (layer,) = layers(server, bundle.digest)
    content = bytearray(server.blob(REPOSITORY, layer))
    if offset is None:
        del content[-4000:]
    else:
        content[offset] ^= 1
    server.corrupt(layer, bytes(content))
    with pytest.raises(BundleError):
        registry.open_bundle(uri, tmp_path / "fetched")
    assert offset is not None or not list((tmp_path / "fetched").iterdir())


HOSTILE = {
    "parent": entry("models/../../escaped", b"x"),
    "absolute": entry("/tmp/escaped", b"x"),
    "link": entry("models/MODEL_CARD.md", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": entry("models/MODEL_CARD.md", type=tarfile.LNKTYPE, linkname="models/bundle.json"),
    "device": entry("models/MODEL_CARD.md", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "huge": entry("models/MODEL_CARD.md", size=1 << 40),
    "huge header": entry("models/x", type=tarfile.XHDTYPE, size=1 << 40),
    "unlisted": entry("models/extra.py", b"x"),
    "nothing": bytes(1024),
}


@pytest.mark.parametrize("place", ["second", "after bundle.json"])
@pytest.mark.parametrize("attack", HOSTILE)
def test_unexpected_entry_is_refused(
    bundle: LoadedBundle, server: OciRegistry, store: str, tmp_path: Path, attack: str, place: str
) -> None:
    valid = {
        "second": entry("models/", None),
        "after bundle.json": entry("models/", None)
        + entry(f"models/{MANIFEST}", (bundle.path / MANIFEST).read_bytes()),
    }
    server.push(REPOSITORY, bundle.digest, valid[place] + HOSTILE[attack])
    with pytest.raises(BundleError, match=r"was modified: its layer (differs|has no bundle.json)"):
        registry.open_bundle(f"{store}:{bundle.digest}", tmp_path / "a" / "b")
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_huge_document_is_refused_by_its_header(
    bundle: LoadedBundle, server: OciRegistry, uri: str, tmp_path: Path, name: str
) -> None:
    (valid,) = (server.blob(REPOSITORY, layer) for layer in layers(server, bundle.digest))
    huge = entry(f"models/{name}", size=1 << 40)
    pushed = [entry("models/", None) + huge] if name == MANIFEST else [valid, huge]
    server.push(REPOSITORY, bundle.digest, *pushed)
    with pytest.raises(BundleError, match=rf"no {name} of at most"):
        registry.open_bundle(uri, tmp_path / "fetched")


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "labels.json/x"])
def test_consistent_bundle_with_an_unsafe_name_is_refused(
    bundle: LoadedBundle, server: OciRegistry, store: str, tmp_path: Path, name: str
) -> None:
    content = json.loads((bundle.path / MANIFEST).read_bytes())
    content["files"][name], content["sizes"][name] = sha256(b"x").hexdigest(), 1
    text = json.dumps(content).encode()
    digest = tree_digest({**content["files"], MANIFEST: sha256(text).hexdigest()})
    server.push(REPOSITORY, digest, entry("models/", None) + entry(f"models/{MANIFEST}", text))
    with pytest.raises(BundleError, match="is not a valid file name"):
        registry.open_bundle(f"{store}:{digest}", tmp_path / "fetched")


NO_LAYERS = "not the image of a bundle"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", NO_LAYERS),
        ("not JSON", NO_LAYERS),
        ('{"layers": []}', NO_LAYERS),
        ('{"layers": [{"digest": "../../other/blobs/x"}]}', NO_LAYERS),
        ('{"layers": [{"digest": 5}]}', NO_LAYERS),
        (f'{{"layers": [{{"digest": "sha256:{"0" * 64}"}}]}}', "the blob sha256:0+ is missing"),
        (" " * (5 * 1024**2), "its manifest exceeds"),
    ],
    ids=range(7),
)
def test_image_without_layers_of_a_bundle_is_refused(
    bundle: LoadedBundle, tmp_path: Path, text: str, problem: str
) -> None:
    with small_registry() as server:  # docker-registry refuses most of these itself
        server.put_manifest(REPOSITORY, bundle.digest, text)
        uri = f"oci://{server.host}/{REPOSITORY}:{bundle.digest}"
        with pytest.raises(BundleError, match=problem):
            registry.open_bundle(uri, tmp_path / "a")


def test_missing_repository_is_one_line_and_exit_code_2(
    bundle: LoadedBundle, server: OciRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["verify", f"oci://{server.host}/nowhere:{bundle.digest}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no bundle found" in line


def test_unreachable_registry_is_one_line(bundle: LoadedBundle, tmp_path: Path) -> None:
    with small_registry() as server:
        store = f"oci://{server.host}/{REPOSITORY}"
    with pytest.raises(OutputError, match=r"deploy.store: cannot access oci://") as raised:
        registry.publish(bundle, store)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("source", ["environment", "docker login"])
def test_credentials(
    bundle: LoadedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str, source: str
) -> None:
    with small_registry(auth) as server:
        if source == "environment":
            monkeypatch.setenv("ORAS_USER", USER)
            monkeypatch.setenv("ORAS_PASS", PASSWORD)
        else:
            login = {"auths": {server.host: {"auth": "Y2k6c2VjcmV0"}}}
            (tmp_path / "home" / ".docker").mkdir(parents=True)
            (tmp_path / "home" / ".docker" / "config.json").write_text(json.dumps(login))
        uri = registry.publish(bundle, f"oci://{server.host}/{REPOSITORY}")
        assert registry.open_bundle(uri, tmp_path / "fetched").digest == bundle.digest


def test_store_to_which_the_registry_redirects_gets_no_credentials(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORAS_USER", USER)
    monkeypatch.setenv("ORAS_PASS", PASSWORD)
    received = []

    class Store(Handler):
        def do_GET(self) -> None:
            received.append(self.headers["authorization"])
            challenge = f'Bearer realm="http://{self.headers["host"]}/token",service="store"'
            self.reply(401, headers={"www-authenticate": challenge})

    store = serve(Store)

    class Registry(Handler):
        def do_GET(self) -> None:
            self.reply(307, headers={"location": f"{store}/manifest"})

    host = serve(Registry).removeprefix("http://")
    with pytest.raises(BundleError, match=r"access denied \(401\)"):
        fetch_manifest(f"oci://{host}/{REPOSITORY}:{'0' * 64}", "0" * 64, "--bundle")
    assert received == [None]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("password", [None, "wrong"])
def test_refused_credentials_are_one_line(
    bundle: LoadedBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    auth: str,
    password: str | None,
) -> None:
    if password:
        monkeypatch.setenv("ORAS_USER", USER)
        monkeypatch.setenv("ORAS_PASS", password)
    with small_registry(auth) as server:
        for error, action in (
            (OutputError, lambda uri: registry.publish(bundle, uri)),
            (
                BundleError,
                lambda uri: registry.open_bundle(f"{uri}:{bundle.digest}", tmp_path / "a"),
            ),
        ):
            with pytest.raises(error, match=r"access denied \(401\); set ORAS_USER"):
                action(f"oci://{server.host}/{REPOSITORY}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "uri", ["oci://registry/grocer/{}", "oci://user:password@registry/grocer:{}", "oci://r:{}"]
)
def test_invalid_address_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected oci://registry/repository:DIGEST") as raised:
        registry.open_bundle(uri.format("a" * 64), tmp_path)
    assert "password" not in str(raised.value)
