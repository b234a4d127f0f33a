"""Image references are immutable."""

import pytest

from components.images import LOCK, Images
from grocer.errors import ConfigError


@pytest.mark.parametrize(
    "reference",
    ["grocer-data:0.1.0", "registry:5000/a/b:3f2c", f"registry:5000/a/b@sha256:{'0' * 64}"],
)
def test_tag_or_digest_is_accepted(reference):
    assert Images(data=reference).data == reference


@pytest.mark.parametrize(
    "reference",
    ["grocer-data", "grocer-data:latest", "registry:5000/a/b", "a@sha256:12", "a b:1", ""],
)
def test_mutable_reference_is_rejected(reference):
    with pytest.raises(ConfigError, match=r"image train: "):
        Images(train=reference)


def test_committed_kustomization_has_the_default_images():
    assert Images.read(LOCK) == Images()


def test_kustomization_of_make_images_is_read(tmp_path):
    digest = f"sha256:{'a' * 64}"
    lines = ["images:", "  - {name: grocer-data, newTag: 3f2c}"]
    lines += ["  - {name: grocer-train, newName: r.io/g/grocer-train, newTag: 3f2c}"]
    lines += [f"  - {{name: grocer-serve, newName: r.io/g/grocer-serve, digest: '{digest}'}}"]
    (tmp_path / "kustomization.yaml").write_text("\n".join(lines))
    read = Images.read(tmp_path / "kustomization.yaml")
    assert read.data == "grocer-data:3f2c"
    assert read.train == "r.io/g/grocer-train:3f2c"
    assert read.serve == f"r.io/g/grocer-serve@{digest}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a kustomization with images"),
        ("resources: []", "not a kustomization with images"),
        ("images: [{name: grocer-data, newTag: '1'}]", "grocer-train"),
        ("images: [{name: grocer-data}]", "not a kustomization with images"),
    ],
)
def test_kustomization_without_the_images_is_rejected(tmp_path, text, message):
    path = tmp_path / "kustomization.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Images.read(path)
