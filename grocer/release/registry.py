"""The registry: immutable bundles in an object store or an OCI registry, named by their digests.

    s3://bucket/prefix/<digest>/adapter_model.safetensors ... bundle.json
    oci://registry/repository:<digest>, as grocer/release/image.py says

`bundle.json` is uploaded last, so a bundle that has this file is complete. Only the signature is
ever overwritten, by another one of the same bundle.
"""

import re
from pathlib import Path

from grocer import progress
from grocer.errors import BundleError, OutputError
from grocer.io.atomic import file_digest, output_directory
from grocer.io.storage import Storage
from grocer.release.bundle import LoadedBundle, load_bundle
from grocer.release.manifest import MANIFEST, parse_manifest
from grocer.release.signature import MAX_SIGNATURE_BYTES, SIGNATURE

_STORE = "deploy.store"


def publish(bundle: LoadedBundle, store: str) -> str:
    """Upload a bundle; files that already exist in the store are verified, not overwritten.

    Args:
        store: `s3://`, `gs://` or `oci://` URI that holds bundles.

    Returns:
        The bundle's URI, `<store>/<digest>` (OCI: `<store>:<digest>`), after verifying it there.

    Raises:
        OutputError: the store cannot be written, or a file at the URI has another SHA-256.
    """
    if is_image(store):
        from grocer.release.image import publish_image

        uri = f"{store}:{bundle.digest}"
        outcome = "already published" if publish_image(bundle, uri, _STORE) else "published"
        progress.say("deploy", f"{outcome}: {uri}")
        return uri
    uri = f"{store.rstrip('/')}/{bundle.digest}"
    digests = {**bundle.manifest.files, MANIFEST: file_digest(bundle.path / MANIFEST)}
    storage = Storage(uri, setting=_STORE, step="deploy")
    existing = set(storage.find())
    if extra := sorted(existing - set(digests) - {SIGNATURE}):
        raise OutputError(f"{uri}/{extra[0]} is not part of the bundle; remove it")
    if (bundle.path / SIGNATURE).is_file():
        storage.put(bundle.path / SIGNATURE, SIGNATURE)
    for name, digest in digests.items():
        if name not in existing:
            storage.put(bundle.path / name, name)
        if storage.sha256(name) != digest:
            raise OutputError(
                f"{uri}/{name} already exists with another SHA-256 than in the bundle; "
                f"remove it, or set another {_STORE}"
            )
    outcome = "already published" if set(digests) <= existing else "published"
    progress.say("deploy", f"{outcome}: {uri}, all files verified")
    return uri


def open_bundle(
    uri: str, directory: Path, *, setting: str = "--bundle", step: str | None = None
) -> LoadedBundle:
    """Return the verified bundle at a local path, or at a URI that ends in its digest.

    A remote bundle is downloaded to `directory`. Only the signature and the files that
    `bundle.json` lists are read, after it was verified by the digest.

    Args:
        setting: option that names the bundle, for error messages.
        step: pipeline step that reports retries, if any.

    Raises:
        BundleError: there is no complete bundle, it cannot be read, or it fails the verification
            of `load_bundle`.
        OutputError: `directory` cannot be written.
    """
    if "://" not in uri:
        return load_bundle(Path(uri))
    digest = uri.rstrip("/")[-64:]
    if not re.search("[/:][0-9a-f]{64}/?$", uri):
        raise BundleError(f"{setting} {uri}: expected an address that ends in a bundle's digest")
    if is_image(uri):
        from grocer.release.image import fetch_image

        with output_directory(directory / digest) as part:
            fetch_image(uri, digest, part, setting)
        return load_bundle(directory / digest)
    storage = Storage(uri, setting=setting, step=step, error=BundleError)
    if not storage.exists(MANIFEST):
        raise BundleError(f"{setting} {uri}: no bundle found, or an incomplete one")
    text = storage.read_bytes(MANIFEST)
    manifest = parse_manifest(text, digest, uri)
    with output_directory(directory / digest) as part:
        if problem := storage.get_listed(manifest.sizes, part):
            raise BundleError(f"{uri} was modified: {problem}")
        (part / MANIFEST).write_bytes(text)
        if storage.exists(SIGNATURE):
            signature = storage.read_bytes(SIGNATURE, MAX_SIGNATURE_BYTES)
            (part / SIGNATURE).write_bytes(signature)
    return load_bundle(directory / digest)


def is_image(uri: str) -> bool:
    """Return whether a bundle's or a store's URI is that of an OCI registry."""
    return re.match(r"oci(\+native)?://", uri) is not None
