"""Tables out of zip archives, zips inside zips included, as Kaggle packs them."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from grocer import progress as console
from grocer.errors import SourceError

TABLE_SUFFIXES = (".csv", ".parquet", ".csv.zip")
_BLOCK = 1024 * 1024


def unpack(archive: Path, target: Path, wanted: Collection[str] = ()) -> list[Path]:
    """Unpack the files named `wanted` (all tables when empty) into `target`, without folders.

    Raises:
        SourceError: not a zip, cut short, damaged, encrypted, or a name that is in it twice.
    """
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                name = PurePosixPath(member.filename).name
                if not _is_wanted(name, wanted):
                    continue
                if name in found:
                    raise SourceError(f"{archive.name} holds {name} twice; keep one")
                console.say("ingest", f"unpacking {name} ({member.file_size / 1e6:,.1f} MB)")
                found[name] = target / name
                with members.open(member) as packed, found[name].open("wb") as file:
                    shutil.copyfileobj(packed, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceError(
            f"{archive.name} is not a whole zip ({error}); fetch or copy it again"
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown method
        raise SourceError(f"{archive.name} can't be unpacked: {error}") from error
    return list(found.values())


def _is_wanted(name: str, wanted: Collection[str]) -> bool:
    if name.startswith("."):  # what macOS adds beside each file
        return False
    return name in wanted if wanted else name.endswith(TABLE_SUFFIXES)
