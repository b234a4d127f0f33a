"""Submitting and scheduling runs: checks before connecting, uploads, parameters.

Over HTTP, against a fake of the Kubeflow Pipelines API.
"""

import pytest

from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from pipelines.cli.main import execute
from tests.fixtures.kubeflow_server import Kubeflow

DATA = ("--data", "s3://bucket/instacart")
STORE = ("--set", "deploy.store=s3://bucket/bundles")
UNREACHABLE = ("--host", "http://127.0.0.1:9")
BUNDLE = f"s3://bucket/bundles/{'a' * 64}"


def submit(server, *options):
    return execute(["submit", *DATA, *STORE, "--no-follow", "--host", server.url, *options])


def schedule(server, *options):
    return execute(["schedule", *DATA, *STORE, "--host", server.url, *options])


def config_in(server):
    """The default configuration of the latest pipeline version."""
    pipeline, _ = list(server.texts.values())[-1]
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    return RunConfig.from_json(parameters["config"]["defaultValue"])


def test_run_uses_the_uploaded_version(capsys):
    with Kubeflow() as server:
        assert submit(server, "--set", "gate.min_accuracy=0.5", "--service-account", "me") == 0
        (run,) = server.runs.values()
        (version,) = [v for v in server.versions.values() if v["display_name"] != "grocer"]
        config = config_in(server)
    output = capsys.readouterr()
    assert output.out == f"{server.url}/#/runs/details/{run['run_id']}\n"
    assert output.err == ""
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["service_account"] == "me"
    assert run["runtime_config"]["parameters"] == {"data": DATA[1]}
    assert config == recipe("llama2-7b-t4").with_settings(
        ["gate.min_accuracy=0.5", "deploy.store=s3://bucket/bundles"]
    )


def test_unchanged_pipeline_is_uploaded_once():
    with Kubeflow() as server:
        for settings in ((), (), ("--set", "gate.min_accuracy=0.5")):
            assert submit(server, *settings) == 0
        assert (len(server.pipelines), len(server.runs), len(server.experiments)) == (1, 3, 1)
        assert len(server.versions) == 3  # Kubeflow's initial version, and one per configuration


def test_champion_and_canary_options():
    with Kubeflow() as server:
        assert submit(server, "--champion", BUNDLE, "--canary", "10") == 0
        (run,) = server.runs.values()
        assert config_in(server).deploy.canary == (10,)
        assert submit(server, "--canary", "5,25", "--analysis") == 0
        deploy = config_in(server).deploy
        assert (deploy.canary, deploy.analysis) == ((5, 25), True)
    assert run["runtime_config"]["parameters"] == {"data": DATA[1], "champion": BUNDLE}
    assert run["service_account"] == "grocer-pipeline"  # by default that of manifests/


def test_images_from_a_file(tmp_path, capsys):
    file = tmp_path / "kustomization.yaml"
    entry = "- {{name: grocer-{0}, newName: r.io/{0}, newTag: v7}}\n"
    file.write_text("images:\n" + "".join(entry.format(n) for n in ("data", "train", "serve")))
    with Kubeflow() as server:
        assert submit(server, "--images", str(file)) == 0
        pipeline, _ = list(server.texts.values())[-1]
        executors = pipeline["deploymentSpec"]["executors"]
        assert executors["exec-train"]["container"]["image"] == "r.io/train:v7"
        assert submit(server, "--images", str(tmp_path / "absent")) == 2
        assert len(server.runs) == 1
    assert "not a kustomization with images" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["submit", "schedule"])
@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (("--data", "./catalogue", *STORE), "pods cannot access"),
        (("--data", "/data", *STORE), "pods cannot access"),
        (("--data", "file:///data", *STORE), "pods cannot access"),
        (
            ("--data", "ftp://host/x", *STORE),
            "pods cannot access this address; use s3://, gs://, http",
        ),
        (("--data", "s3://", *STORE), "--data s3://: pods cannot access"),
        (
            ("--data", "https://host/all.zip?X-Amz-Signature=secret", *STORE),
            "https://host/all.zip?***: Kubeflow stores and shows the address",
        ),
        (DATA, "deploy.store is not set"),
        ((*DATA, *STORE, "--set", "data.engine=spark"), "data.engine=spark"),
        ((*DATA, *STORE, "--set", "data.partitions=copies"), "data.partitions copies: pods"),
        (
            (*DATA, *STORE, "--champion", "s3://b/p"),
            "--champion s3://b/p: not the address of a bundle",
        ),
        (
            (*DATA, *STORE, "--champion", "oci://host/repository:latest"),
            "--champion oci://host/repository:latest: not the address of a bundle",
        ),
        ((*DATA, "--set", "deploy.store=oci://host/Repository"), "deploy.store: "),
        ((*DATA, "--set", "deploy.store=oci://host/repository:tag"), "deploy.store: "),
        ((*DATA, *STORE, "--canary", "100"), "deploy.canary.0: "),
        ((*DATA, *STORE, "--canary", "some"), "deploy.canary: "),
        ((*DATA, *STORE, "--canary", "25,5", "--analysis"), "must ascend"),
        ((*DATA, *STORE, "--canary", "5,25"), "require analysis=true (--analysis)"),
        ((*DATA, *STORE, "--analysis"), "analysis requires canary"),
        ((*DATA, "--set", "deploy.store=/mnt"), "deploy.store: "),
        ((*DATA, *STORE, "--recipe", "tinny"), "--recipe tinny"),
    ],
)
def test_invalid_option_is_reported_before_connecting(user_error, command, options, fragment):
    cron = ("--cron", "0 3 * * 1") if command == "schedule" else ()
    assert fragment in user_error(command, *options, *cron, *UNREACHABLE)


def test_no_deploy_compiles_without_store_and_canary():
    with Kubeflow() as server:
        options = ["--no-deploy", "--no-follow", "--host", server.url]
        assert execute(["submit", *DATA, *options]) == 0
        assert execute(["submit", *DATA, *STORE, "--canary", "5", *options]) == 0
        assert config_in(server).deploy.store is None
        assert len(server.versions) == 2  # Kubeflow's initial version, and one for both runs


def test_schedule_is_replaced_only_with_option(capsys):
    with Kubeflow() as server:
        assert schedule(server, "--cron", "0 3 * * 1") == 0
        assert schedule(server, "--cron", "0 4 * * 1") == 2
        assert "--replace" in capsys.readouterr().err
        assert schedule(server, "--cron", "0 4 * * 1", "--replace") == 0
        (recurring_run,) = server.schedules.values()
    assert recurring_run["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * 1"
    assert recurring_run["max_concurrency"] == 1
    assert recurring_run["no_catchup"] is True
    assert recurring_run["runtime_config"]["parameters"] == {"data": DATA[1]}
    assert recurring_run["service_account"] == "grocer-pipeline"


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUCCEEDED"])
def test_schedule_with_an_active_run_is_not_replaced(state, capsys):
    with Kubeflow() as server:
        assert schedule(server, "--cron", "0 3 * * 1") == 0
        (identity,) = server.schedules
        run = {"display_name": "grocer-1", "state": state, "recurring_run_id": identity}
        server.runs["1"] = {"run_id": "1", **run}
        code = schedule(server, "--cron", "0 4 * * 1", "--replace")
        assert list(server.schedules) == ([identity] if code else ["recurring_run_id-2"])
    assert code == (0 if state == "SUCCEEDED" else 2)
    assert ("run grocer-1" in capsys.readouterr().err) == bool(code)


def test_schedule_with_conditions_starts_with_the_check():
    when = ("--when", "500 corrections or 30d", "--corrections", "s3://bucket/corrections")
    with Kubeflow() as server:
        assert schedule(server, "--cron", "0 * * * *", *when, "--cool-down", "2") == 0
        (recurring_run,) = server.schedules.values()
        pipeline, _ = list(server.texts.values())[-1]
    assert recurring_run["max_concurrency"] == 1
    assert recurring_run["runtime_config"]["parameters"] == {
        "data": DATA[1],
        "when": "500 corrections or 30d",
        "metrics": "",
        "cool_down_days": 2.0,
        "state": "s3://bucket/bundles/last-run/grocer",
    }
    names = {
        name: spec["taskInfo"]["name"] for name, spec in pipeline["root"]["dag"]["tasks"].items()
    }
    assert names == {"check-due": "check-due", "condition-1": "due"}


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ((*STORE, "--when", "weekly"), "'weekly' is not a condition"),
        ((*STORE, "--when", "5 corrections"), "requires --corrections"),
        ((*STORE, "--when", "drift"), "requires --metrics"),
        ((*STORE, "--when", "1d", "--state", "/mnt/state"), "--state /mnt/state: pods cannot"),
        ((*STORE, "--state", "s3://b/state"), "--state requires --when"),
        ((*STORE, "--cool-down", "3"), "--cool-down require --when"),
        (("--no-deploy", "--when", "1d"), "set --champion"),
        (("--no-deploy", "--when", "1d", "--champion", BUNDLE), "set --state"),
        (("--set", "deploy.store=oci://host/bundles", "--when", "1d"), "set --state"),
    ],
)
def test_invalid_trigger_is_reported_before_connecting(user_error, options, fragment):
    arguments = (*DATA, *options, "--cron", "0 3 * * 1", *UNREACHABLE)
    assert fragment in user_error("schedule", *arguments)
