"""The versions that kind/up installs belong to the Python packages."""

import re
from pathlib import Path

from grocer.config.recipes import RECIPES
from serving.rollout.inference_service import MIN_KSERVE

ROOT = Path(__file__).parents[2]


def test_base_models_on_the_hub_are_pinned_to_a_commit() -> None:
    sources = [make().base.source for make in RECIPES.values()]
    on_hub = [source for source in sources if "/" in source and "://" not in source]
    assert len(on_hub) == 3
    assert all(re.search(r"@[0-9a-f]{40}$", source) for source in on_hub)


def test_kserve_in_kind_and_its_package_have_the_same_minor_version() -> None:
    installed = re.search(r"^KSERVE=v(\d+)\.(\d+)", (ROOT / "kind/versions").read_text(), re.M)
    package = re.search(r'"kserve==(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert installed
    assert package
    assert installed.groups() == package.groups()
    assert tuple(map(int, installed.groups())) >= MIN_KSERVE
