"""The store of bundles: each stands under its digest in an object store, and is never changed.

    s3://bucket/prefix/<digest>/adapter_model.safetensors ... bundle.json

`bundle.json` goes there last, so a bundle that has one is whole.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from grocer import progress as console
from grocer.errors import BundleError, OutputError
from grocer.io.atomic import file_digest, output_directory
from grocer.io.storage import Storage
from grocer.release.bundle import MANIFEST, Bundle, load_bundle

_SETTING = "deploy.store"


def publish(bundle: Bundle, store: str) -> str:
    """Put a bundle into the store; what is there of it already is checked and kept.

    Args:
        bundle: a bundle whose bytes were checked.
        store: `s3://` or `gs://` address that holds bundles.

    Returns:
        The bundle's address, `<store>/<digest>`. Every byte there was read back.

    Raises:
        OutputError: the store can't be written, or holds other bytes under this digest.
    """
    address = f"{store.rstrip('/')}/{bundle.digest}"
    digests = {**bundle.manifest.files, MANIFEST: file_digest(bundle.path / MANIFEST)}
    storage = _storage(address)
    there = set(storage.find())
    if extra := sorted(there - set(digests)):
        raise OutputError(f"{address}/{extra[0]} is no part of the bundle; remove it")
    for name, digest in digests.items():
        if name not in there:
            storage.put(bundle.path / name, name)
        if storage.sha256(name) != digest:
            raise OutputError(
                f"{address}/{name} holds other bytes than the bundle of that digest: somebody "
                f"wrote there; remove it, or name another {_SETTING}"
            )
    news = "stands already" if set(digests) <= there else "published"
    console.say("deploy", f"{news} at {address}, every byte read back")
    return address


def fetch(address: str, into: Path) -> Bundle:
    """Copy the bundle at `address` (`.../<digest>`) to `into/<digest>`, and check every byte.

    Raises:
        BundleError: nothing is there, or it is not what its digest says, or must not serve.
        OutputError: the store can't be read.
    """
    digest = address.rstrip("/").rpartition("/")[2]
    storage = _storage(address)
    names = set(storage.find())
    if MANIFEST not in names:
        raise BundleError(f"{address}: no bundle is there, or only a part of one")
    if astray := [name for name in sorted(names) if ".." in PurePosixPath(name).parts]:
        raise BundleError(f"{address}: {astray[0]} is no part of a bundle; remove it")
    with output_directory(into / digest) as part:
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            storage.get(part / name, name)
    return load_bundle(into / digest)


def _storage(address: str) -> Storage:
    return Storage(address, setting=_SETTING, step="deploy")
