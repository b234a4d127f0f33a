"""Extract tables from zip archives."""

import shutil
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from grocer import progress
from grocer.errors import SourceError

TABLE_SUFFIXES = (".csv", ".parquet", ".csv.zip")
_BLOCK_BYTES = 1024 * 1024
_SMALL_BYTES = 100_000_000
_MAX_EXPANSION = 200
"""Maximum unpacked size per byte of an archive, beyond `_SMALL_BYTES`; tables have 3 to 20."""


def unpack(archive: Path, target: Path, names: Collection[str] = ()) -> list[Path]:
    """Extract the files with these names (all tables if empty) directly into `target`.

    Raises:
        SourceError: not a zip, truncated, damaged, encrypted, too large once unpacked, or two
            files with the same name.
    """
    target.mkdir(parents=True, exist_ok=True)
    unpacked: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(archive) as members:
            selected = [each for each in members.infolist() if _is_selected(each, names)]
            # No more than these sizes is unpacked, whatever the archive contains.
            _require_space(archive, sum(member.file_size for member in selected), target)
            for member in selected:
                name = PurePosixPath(member.filename).name
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


def _is_selected(member: zipfile.ZipInfo, names: Collection[str]) -> bool:
    name = PurePosixPath(member.filename).name
    if name.startswith("."):  # metadata of macOS
        return False
    return name in names if names else name.endswith(TABLE_SUFFIXES)


def _require_space(archive: Path, size: int, target: Path) -> None:
    limit, free = _MAX_EXPANSION * archive.stat().st_size, shutil.disk_usage(target).free
    if size > max(limit, _SMALL_BYTES):
        raise SourceError(
            f"{archive.name}: its tables have {size:,} bytes unpacked, more than {_MAX_EXPANSION} "
            "times the archive; check it, and unpack it yourself if it is right"
        )
    if size > free:
        raise SourceError(
            f"{archive.name}: its tables need {size:,} bytes in {target}, which has {free:,}; free "
            "some space, or choose another output directory"
        )
