"""Bundles in an OCI registry, as images that KServe mounts or unpacks.

    oci://registry/repository:<digest of the bundle>
        layer 1   models/  models/bundle.json  all other files, sorted by name
        layer 2   models/model.sig, if there is one

The layers are uncompressed tar files without times and owners, so the digest of the first one
follows from that of the bundle. A layer is accepted only if it has exactly the headers that
`publish_image` writes for the files in bundle.json: no link, no other path and no other size.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from grocer.errors import BundleError, OutputError
from grocer.io.atomic import file_digest, json_bytes, output_errors
from grocer.io.oci_registry import MANIFEST_TYPE, Blob, Repository
from grocer.io.storage import MAX_DOCUMENT_BYTES, invalid_name
from grocer.release.bundle import LoadedBundle
from grocer.release.manifest import MANIFEST, Manifest, parse_manifest
from grocer.release.signature import MAX_SIGNATURE_BYTES, SIGNATURE

_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_FOLDER = "models/"  # where KServe expects the files
_BLOCK, _CHUNK_BYTES = tarfile.BLOCKSIZE, 1024**2


def publish_image(bundle: LoadedBundle, uri: str, setting: str) -> bool:
    """Upload a bundle; only the signature of an image that exists is replaced.

    Args:
        uri: `oci://registry/repository:<digest>`.
        setting: configuration key that holds the address, for error messages.

    Returns:
        Whether the image existed.

    Raises:
        OutputError: the registry cannot be written, or the tag names another image.
    """
    repository = Repository(uri, setting=setting, error=OutputError)
    with TemporaryDirectory() as folder, output_errors(Path(folder)):
        paths = [Path(folder, "files.tar")]
        sizes = {**bundle.manifest.sizes, MANIFEST: (bundle.path / MANIFEST).stat().st_size}
        _write_layer(paths[0], bundle.path, _entries(sizes))
        signature = bundle.path / SIGNATURE
        if signature.is_file():
            paths.append(Path(folder, "signature.tar"))
            _write_layer(paths[1], bundle.path, [(SIGNATURE, signature.stat().st_size)])
        layers = [_descriptor(path, _LAYER_TYPE) for path in paths]
        paths.append(Path(folder, "config.json"))
        rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        paths[-1].write_bytes(
            json_bytes({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
        )
        config = _descriptor(paths[-1], _CONFIG_TYPE)
        image = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
        text, existing = json_bytes(image), repository.manifest()
        if existing is not None and _layers(existing)[:1] != [layers[0]["digest"]]:
            raise OutputError(
                f"{uri} already exists with other files than the bundle; remove it, or set "
                f"another {setting}"
            )
        for path, descriptor in zip(paths, [*layers, config], strict=True):
            repository.put_blob(path, descriptor["digest"])
    if existing != text:
        repository.put_manifest(text)
    return existing == text


def fetch_image(uri: str, digest: str, target: Path, setting: str) -> None:
    """Download the files of a bundle; `load_bundle` has to verify them.

    Args:
        uri: `oci://registry/repository:<digest>`.
        target: an empty directory.
        setting: option that names the bundle, for error messages.

    Raises:
        BundleError: there is no such image, or it is not that of a bundle with this digest.
    """
    repository, layers = _open(uri, setting)
    with closing(repository.open_blob(layers[0])) as blob:
        content, manifest = _read_manifest(blob, digest)
        if (name := invalid_name(manifest.sizes)) is not None:
            raise _modified(blob, f"{name[:80]!r} is not a valid file name")
        (target / MANIFEST).write_bytes(content)
        for name, size in _entries({**manifest.sizes, MANIFEST: len(content)})[2:]:
            _receive(blob, name, size, target)
    for layer in layers[1:]:
        with closing(repository.open_blob(layer)) as blob:
            signature = _read_document(blob, SIGNATURE, MAX_SIGNATURE_BYTES)
            (target / SIGNATURE).write_bytes(signature)


def fetch_manifest(uri: str, digest: str, setting: str) -> Manifest:
    """Return bundle.json alone; takes the arguments of `fetch_image`, and raises its errors."""
    repository, layers = _open(uri, setting)
    with closing(repository.open_blob(layers[0])) as blob:
        return _read_manifest(blob, digest)[1]


def _open(uri: str, setting: str) -> tuple[Repository, list[str]]:
    """Return the repository of an image, and the digests of its layers."""
    repository = Repository(uri, setting=setting, error=BundleError)
    if (text := repository.manifest()) is None:
        raise BundleError(f"{setting} {uri}: no bundle found")
    layers = _layers(text)
    if not 1 <= len(layers) <= 2:
        raise BundleError(f"{setting} {uri}: not the image of a bundle; expected 1 or 2 layers")
    return repository, layers


def _read_manifest(blob: Blob, digest: str) -> tuple[bytes, Manifest]:
    """Read the first file of the first layer, which is bundle.json."""
    _expect(blob, "", None)
    content = _read_document(blob, MANIFEST, MAX_DOCUMENT_BYTES)
    return content, parse_manifest(content, digest, blob.address)


def _entries(sizes: Mapping[str, int]) -> list[tuple[str, int | None]]:
    """Return the name and size of each entry of the first layer; a directory has no size."""
    parents = {parent for name in sizes for parent in PurePosixPath(name).parents}
    folders = {f"{parent}/": None for parent in parents if parent.name}
    others = {name: size for name, size in sizes.items() if name != MANIFEST}
    return [("", None), (MANIFEST, sizes[MANIFEST]), *sorted({**folders, **others}.items())]


def _header(name: str, size: int | None) -> bytes:
    """Return the only header that an entry may have."""
    info = tarfile.TarInfo(_FOLDER + name)
    if size is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    info.size = size or 0
    return info.tobuf(tarfile.GNU_FORMAT)


def _write_layer(path: Path, root: Path, entries: Iterable[tuple[str, int | None]]) -> None:
    with path.open("wb") as layer:
        for name, size in entries:
            layer.write(_header(name, size))
            if size is not None:
                with (root / name).open("rb") as file:
                    shutil.copyfileobj(file, layer)
                layer.write(bytes(-size % _BLOCK))
        layer.write(bytes(2 * _BLOCK))


def _descriptor(path: Path, media_type: str) -> dict[str, Any]:
    digest, size = f"sha256:{file_digest(path)}", path.stat().st_size
    return {"mediaType": media_type, "digest": digest, "size": size}


def _layers(image: bytes) -> list[str]:
    """Return the digests of the layers of a manifest; empty if it is invalid."""
    try:
        digests = [layer["digest"] for layer in json.loads(image)["layers"]]
        return digests if all(_DIGEST.fullmatch(digest) for digest in digests) else []
    except (ValueError, TypeError, KeyError):
        return []


def _modified(blob: Blob, problem: str) -> BundleError:
    return BundleError(f"{blob.address} was modified: {problem}")


def _expect(blob: Blob, name: str, size: int | None) -> None:
    header = _header(name, size)
    if blob.read(len(header)) != header:
        raise _modified(blob, f"its layer differs from that of the bundle at {name or _FOLDER}")


def _read_document(blob: Blob, name: str, limit: int) -> bytes:
    """Return the content of the next file, the size of which only its header says."""
    header = blob.read(_BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "strict").size
    except tarfile.HeaderError:
        size = -1
    if not 0 <= size <= limit or header != _header(name, size):
        raise _modified(blob, f"its layer has no {name} of at most {limit:,} bytes at its place")
    content = blob.read(size)
    if len(content) != size:
        raise _modified(blob, f"its layer ends within {name}")
    blob.read(-size % _BLOCK)
    return content


def _receive(blob: Blob, name: str, size: int | None, target: Path) -> None:
    """Write the next entry, a file or a directory, to `target`."""
    _expect(blob, name, size)
    if size is None:
        (target / name).mkdir()
        return
    with (target / name).open("wb") as file:
        for start in range(0, size, _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, size - start)
            chunk = blob.read(length)
            if len(chunk) != length:
                raise _modified(blob, f"its layer ends within {name}")
            file.write(chunk)
    blob.read(-size % _BLOCK)
