"""Files that lie at an address or at a path: fetched, put whole, and removed.

`option` names what told the place, for the one line that says why it can't be reached.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from grocer.io import storage as remote
from grocer.io.atomic import whole_file


def get(place: str, local: Path, option: str) -> None:
    """Copy the file at `place` to `local`.

    Raises:
        OutputError: it is not there, or can't be read.
    """
    with remote.reaching(place, "read", option):
        if remote.is_remote(place):
            _files(place).get_file(place, str(local))
        else:
            shutil.copyfile(place, local)


def put(local: Path, place: str, option: str) -> None:
    """Copy `local` to `place`, where it appears whole.

    Raises:
        OutputError: it can't be written there.
    """
    with remote.reaching(place, "write", option):
        if remote.is_remote(place):
            _files(place).put_file(str(local), place)
        else:
            with whole_file(Path(place)) as part:
                shutil.copyfile(local, part)


def exists(place: str, option: str) -> bool:
    """Whether there is a file.

    Raises:
        OutputError: that can't be told.
    """
    with remote.reaching(place, "read", option):
        if remote.is_remote(place):
            return bool(_files(place).exists(place))
        return Path(place).exists()


def remove(folder: str, option: str) -> None:
    """Remove a folder and all that is in it.

    Raises:
        OutputError: it can't be removed.
    """
    with remote.reaching(folder, "write", option):
        if remote.is_remote(folder):
            _files(folder).rm(folder, recursive=True)
        else:
            shutil.rmtree(folder)


def _files(address: str) -> Any:
    return remote.file_system(address.partition("://")[0])
