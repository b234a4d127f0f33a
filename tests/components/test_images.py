"""Images are named so that they can't change under their name."""

import pytest

from components.images import Images
from grocer.errors import ConfigError


@pytest.mark.parametrize(
    "reference",
    ["grocer-data:0.1.0", "registry:5000/a/b:3f2c", f"registry:5000/a/b@sha256:{'0' * 64}"],
)
def test_a_tag_or_a_digest_will_do(reference):
    assert Images(data=reference).data == reference


@pytest.mark.parametrize(
    "reference",
    ["grocer-data", "grocer-data:latest", "registry:5000/a/b", "a@sha256:12", "a b:1", ""],
)
def test_a_name_that_can_change_is_refused(reference):
    with pytest.raises(ConfigError, match=r"image train: .* names no fixed image"):
        Images(train=reference)
