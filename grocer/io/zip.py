"""Extract tables from zip archives."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from grocer import progress
from grocer.errors import SourceError

TABLE_SUFFIXES = (".csv", ".parquet", ".csv.zip")
_BLOCK_BYTES = 1024 * 1024


def unpack(archive: Path, target: Path, names: Collection[str] = ()) -> list[Path]:
    """Extract the files with these names (all tables if empty) directly into `target`.

    Raises:
        SourceError: not a zip, truncated, damaged, encrypted, or two files with the same name.
    """
    target.mkdir(parents=True, exist_ok=True)
    unpacked: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                name = PurePosixPath(member.filename).name
                is_selected = name in names if names else name.endswith(TABLE_SUFFIXES)
                if not is_selected or name.startswith("."):  # metadata of macOS
                    continue
                if name in unpacked:
                    raise SourceError(f"{archive.name}: two files named {name}; keep one")
                progress.say("ingest", f"unpacking {name} ({member.file_size / 1e6:,.1f} MB)")
                unpacked[name] = target / name
                with members.open(member) as packed, unpacked[name].open("wb") as file:
                    shutil.copyfileobj(packed, file, _BLOCK_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceError(
            f"{archive.name}: not a complete zip archive ({error}); download or copy it again"
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown method
        raise SourceError(f"{archive.name}: cannot unpack: {error}") from error
    return list(unpacked.values())
