"""Protects what is handed to Kubeflow: checked here first, uploaded once, run as told.

Over HTTP, against a stand-in of its REST API.
"""

import pytest

from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from pipelines.cli.main import execute
from tests.fixtures.kubeflow_server import Kubeflow

DATA = ("--data", "s3://bucket/instacart")
STORE = ("--set", "deploy.store=s3://bucket/bundles")
NOBODY = ("--host", "http://127.0.0.1:9")
BUNDLE = f"s3://bucket/bundles/{'a' * 64}"


def submit(server, *options):
    return execute(["submit", *DATA, *STORE, "--no-follow", "--host", server.url, *options])


def schedule(server, *options):
    return execute(["schedule", *DATA, *STORE, "--host", server.url, *options])


def config_in(server):
    """The configuration that the newest version has as its default."""
    _, text = list(server.texts.items())[-1]
    (pipeline, _) = text
    given = pipeline["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    return RunConfig.from_json(given)


def test_a_run_is_started_from_a_version_of_its_own(capsys):
    with Kubeflow() as server:
        assert submit(server, "--set", "gate.min_accuracy=0.5", "--service-account", "me") == 0
        (run,) = server.runs.values()
        (version,) = [v for v in server.versions.values() if v["display_name"] != "grocer"]
        config = config_in(server)
    told = capsys.readouterr()
    assert told.out == f"{server.url}/#/runs/details/{run['run_id']}\n"
    assert told.err == ""
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["service_account"] == "me"
    assert run["runtime_config"]["parameters"] == {"data": DATA[1]}
    assert config == recipe("llama2-7b-t4").with_settings(
        ["gate.min_accuracy=0.5", "deploy.store=s3://bucket/bundles"]
    )


def test_the_steps_account_is_the_one_of_the_manifests():
    with Kubeflow() as server:
        assert submit(server) == 0
        (run,) = server.runs.values()
    assert run["service_account"] == "grocer-pipeline"


def test_the_same_pipeline_is_uploaded_once():
    with Kubeflow() as server:
        for settings in ((), (), ("--set", "gate.min_accuracy=0.5")):
            assert submit(server, *settings) == 0
        assert (len(server.pipelines), len(server.runs), len(server.experiments)) == (1, 3, 1)
        assert len(server.versions) == 3  # kfp's first, and one for each configuration


def test_a_champion_and_a_canary_go_with_the_run():
    with Kubeflow() as server:
        assert submit(server, "--champion", BUNDLE, "--canary", "10") == 0
        (run,) = server.runs.values()
        assert config_in(server).deploy.canary == 10
    assert run["runtime_config"]["parameters"] == {"data": DATA[1], "champion": BUNDLE}


def test_images_come_from_a_file(tmp_path, capsys):
    file = tmp_path / "kustomization.yaml"
    entry = "- {{name: grocer-{0}, newName: r.io/{0}, newTag: v7}}\n"
    file.write_text("images:\n" + "".join(entry.format(n) for n in ("data", "train", "serve")))
    with Kubeflow() as server:
        assert submit(server, "--images", str(file)) == 0
        (pipeline, _) = list(server.texts.values())[-1]
        executors = pipeline["deploymentSpec"]["executors"]
        assert executors["exec-train"]["container"]["image"] == "r.io/train:v7"
        assert submit(server, "--images", str(tmp_path / "absent")) == 2
        assert len(server.runs) == 1
    assert "not a kustomization with images" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["submit", "schedule"])
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--data", "./catalogue", *STORE), "a pod can't reach a path of this machine"),
        (("--data", "/data", *STORE), "a pod can't reach a path of this machine"),
        (("--data", "file:///data", *STORE), "a pod can't reach a path of this machine"),
        (("--data", "ftp://host/x", *STORE), "no address that a pod can reach: s3://, gs://, http"),
        (("--data", "s3://", *STORE), "no address that a pod can reach"),
        (DATA, "deploy.store is not set, so a model that passes would not be served; give --set"),
        ((*DATA, *STORE, "--champion", "s3://b/p"), "--champion s3://b/p: no bundle's address"),
        ((*DATA, *STORE, "--canary", "100"), "Invalid value for '--canary'"),
        ((*DATA, "--set", "deploy.store=/mnt"), "deploy.store: String should match pattern"),
        ((*DATA, *STORE, "--recipe", "tinny"), "--recipe tinny: no such recipe"),
    ],
)
def test_a_mistake_is_told_before_any_server_is_asked(capsys, command, options, line):
    when = ("--cron", "0 3 * * 1") if command == "schedule" else ()
    assert execute([command, *options, *when, *NOBODY]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


def test_without_a_rollout_none_is_compiled():
    with Kubeflow() as server:
        options = ["--no-deploy", "--no-follow", "--host", server.url]
        assert execute(["submit", *DATA, *options]) == 0
        assert execute(["submit", *DATA, *STORE, "--canary", "5", *options]) == 0
        assert config_in(server).deploy.store is None
        assert len(server.versions) == 2  # the same, as neither rolls out


def test_a_schedule_is_made_once_and_replaced_when_asked(capsys):
    with Kubeflow() as server:
        assert schedule(server, "--cron", "0 3 * * 1") == 0
        assert schedule(server, "--cron", "0 4 * * 1") == 2
        assert "there is such a schedule; give --replace" in capsys.readouterr().err
        assert schedule(server, "--cron", "0 4 * * 1", "--replace") == 0
        (made,) = server.schedules.values()
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * 1"
    assert made["max_concurrency"] == 1
    assert made["no_catchup"] is True
    assert made["runtime_config"]["parameters"] == {"data": DATA[1]}
    assert made["service_account"] == "grocer-pipeline"


def test_what_is_no_cron_expression_is_refused(capsys):
    with Kubeflow() as server:
        assert schedule(server, "--cron", "weekly") == 2
        assert server.schedules == {}
    assert "expected 5 fields" in capsys.readouterr().err
