"""Images are named so that they can't change under their name."""

import pytest

from components.images import LOCK, Images
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


def test_the_committed_kustomization_names_the_images():
    assert Images.read(LOCK) == Images()


def test_what_make_images_writes_is_read(tmp_path):
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
    ("text", "said"),
    [
        (None, "not a kustomization with images"),
        ("resources: []", "not a kustomization with images"),
        ("images: [{name: grocer-data, newTag: '1'}]", "does not name 'grocer-train'"),
        ("images: [{name: grocer-data}]", "not a kustomization with images"),
    ],
)
def test_a_file_that_does_not_name_them_is_refused(tmp_path, text, said):
    path = tmp_path / "kustomization.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Images.read(path)
