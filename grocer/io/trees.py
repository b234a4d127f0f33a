"""Directories in an object store, each with a manifest that is written last.

A directory without its manifest, or with other files than it lists, is incomplete.
"""

import json
from pathlib import Path

from pydantic import TypeAdapter

from grocer.io.atomic import file_digest, tree_files
from grocer.io.storage import Storage

MANIFEST = "whole.json"
"""Size and SHA-256 of each file."""
_FILES = TypeAdapter(dict[str, tuple[int, str]])


def put_tree(directory: Path, storage: Storage, name: str) -> None:
    """Copy a directory to the directory `name`, and replace one that exists."""
    files = {
        file: (path.stat().st_size, file_digest(path))
        for file, path in tree_files(directory).items()
    }
    if storage.exists(name):
        storage.remove(name)
    for file in files:
        storage.put(directory / file, f"{name}/{file}")
    storage.write_bytes(json.dumps(files).encode(), f"{name}/{MANIFEST}")


def get_tree(storage: Storage, name: str, local: Path) -> str | None:
    """Copy the directory `name` to `local`; return why it is incomplete, or None."""
    if not storage.exists(f"{name}/{MANIFEST}"):
        return f"{MANIFEST} is missing"
    try:
        files = _FILES.validate_json(storage.read_bytes(f"{name}/{MANIFEST}"))
    except ValueError:
        return f"{MANIFEST} is not a valid list of files"
    local.mkdir(parents=True, exist_ok=True)
    sizes = {file: size for file, (size, _) in files.items()}
    if problem := storage.get_listed(sizes, local, name):
        return problem
    changed = [file for file in files if file_digest(local / file) != files[file][1]]
    return f"{changed[0]} has another digest" if changed else None
