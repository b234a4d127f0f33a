"""The lock has the hash of every file, which pip and uv verify."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def entries(lock: str) -> dict[str, list[str]]:
    """Return the lines after each `name==version`, by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if line.startswith(" "):
            found[name].append(line.strip())
        elif not line.startswith("#"):
            name = line.partition("==")[0]
            found[name] = []
    return found


def locked(wheels: Path | str) -> str:
    command = ["images/locked", str(wheels)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_every_package_has_hashes() -> None:
    for name, lines in entries(LOCK).items():
        assert lines, name
        assert all(line.startswith("--hash=sha256:") for line in lines), name


def test_lock_is_used_as_it_is_without_a_cpu_build_of_torch(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0-cp311-cp311-linux_x86_64.whl").touch()
    for wheels in ("", tmp_path, tmp_path / "absent"):
        assert locked(wheels) == LOCK


def test_only_a_cpu_build_of_torch_is_not_verified(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    text, expected = locked(tmp_path), entries(LOCK)
    removed = {n for n in expected if n.startswith(("nvidia-", "cuda-")) or n == "triton"}
    found = entries(text)
    assert found.keys() == expected.keys() - removed
    assert found.pop("torch") == []
    assert "\ntorch==2.13.0\n" in text
    assert all(lines == expected[name] for name, lines in found.items())
