"""The names of a compiled pipeline in Kubeflow and in a GitOps repository."""

import re

import pytest
import yaml

from grocer.config.recipes import recipe
from pipelines.cli.main import execute
from pipelines.kubeflow.training import package


def test_version_changes_with_the_configuration():
    tiny = package(recipe("tiny"))
    other = package(recipe("tiny").with_settings(["gate.min_accuracy=0.5"]))
    assert tiny.version == package(recipe("tiny")).version != other.version
    assert re.fullmatch(r"tiny-[0-9a-f]{12}", tiny.version)
    assert tiny.name == "grocer"


def test_steps_are_the_tasks_that_run_a_container():
    run = recipe("tiny").with_settings(["deploy.store=s3://b/p", "cluster.fail_if_gate_fails=true"])
    expected = "ingest validate build-dataset train find-champion evaluate gate deploy fail-run"
    assert package(run).steps == set(expected.split())


def test_kubernetes_objects_are_a_pipeline_and_its_version(tmp_path):
    out, again = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for path in (out, again):
        options = ["--recipe", "tiny", "--kubernetes", "--namespace", "kf"]
        assert execute(["compile", str(path), *options]) == 0
    assert out.read_text() == again.read_text()
    pipeline, version = yaml.safe_load_all(out.read_text())
    assert {each["apiVersion"] for each in (pipeline, version)} == {
        "pipelines.kubeflow.org/v2beta1"
    }
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["metadata"] == {"name": "grocer", "namespace": "kf"}
    assert re.fullmatch(r"tiny-[0-9a-f]{12}", version["metadata"]["name"])
    assert version["metadata"]["namespace"] == "kf"
    assert version["spec"]["pipelineName"] == "grocer"
    assert "root" in version["spec"]["pipelineSpec"]
    assert "platforms" in version["spec"]["platformSpec"]


@pytest.mark.parametrize("command", [["compile"], ["bulk", "compile"]])
@pytest.mark.parametrize("namespace", ["BAD_", "", "n" * 64])
def test_name_of_a_namespace_is_checked(tmp_path, capsys, command, namespace):
    out = tmp_path / "out.yaml"
    assert execute([*command, str(out), "--kubernetes", "--namespace", namespace]) == 2
    assert "'--namespace'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["data", "train", "serve"])
def test_mutable_image_tag_is_rejected(tmp_path, capsys, name):
    images, out = tmp_path / "kustomization.yaml", tmp_path / "out.yaml"
    tags = {"data": "1", "train": "1", "serve": "1", name: "latest"}
    entries = [{"name": f"grocer-{key}", "newTag": tag} for key, tag in tags.items()]
    images.write_text(yaml.safe_dump({"images": entries}))
    assert execute(["compile", str(out), "--recipe", "tiny", "--images", str(images)]) == 2
    assert f"image {name}: 'grocer-{name}:latest'" in capsys.readouterr().err
    assert not out.exists()
