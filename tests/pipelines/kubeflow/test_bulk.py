"""The bulk pipeline: its specification, its commands, and a complete local run.

The local run executes the compiled pipeline with kfp's local runner and a linear model.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from grocer.config.recipes import recipe
from grocer.inference.batch import classify
from pipelines.cli.main import execute
from pipelines.kubeflow.bulk import package
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.kubeflow_server import Kubeflow, event

FILES = ("--data", "s3://bucket/names.csv", "--out", "s3://bucket/{date}.csv")
BUNDLE = f"s3://bucket/bundles/{'b' * 64}"
LOCAL_RUN = """
import json, sys
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1], enable_caching=False)
components.load_component_from_file(sys.argv[2])(**json.loads(sys.argv[3]))
"""


def shards(*states):
    """The steps of a run whose shards have these states."""
    return [("shard-table", "SUCCEEDED"), *(("classify-shard", state) for state in states)]


@pytest.fixture(scope="module")
def compiled():
    """The pipeline, and its Kubernetes settings by step."""
    pipeline, platform = yaml.safe_load_all(package(recipe("llama2-7b-t4")).text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return pipeline, {name.removeprefix("exec-"): each for name, each in executors.items()}


def test_shards_are_classified_in_parallel_on_gpu_nodes(compiled):
    pipeline, platform = compiled
    tasks = pipeline["root"]["dag"]["tasks"]
    loop = tasks["for-loop-1"]
    items = loop["parameterIterator"]["items"]["inputParameter"]
    assert items == "pipelinechannel--shard-table-Output"
    body = pipeline["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    assert set(body) == {"classify-shard"}
    assert {step for step, spec in platform.items() if "nodeSelector" in spec} == {"classify-shard"}
    assert "for-loop-1" in tasks["merge-shards"]["dependentTasks"]


def test_every_step_uses_the_store_runs_as_non_root_and_is_not_cached(compiled):
    pipeline, platform = compiled
    assert set(platform) == {"find-champion", "shard-table", "classify-shard", "merge-shards"}
    for spec in platform.values():
        assert "grocer-s3" in {secret["secretName"] for secret in spec["secretAsEnv"]}
        assert spec["configMapAsEnv"][0]["configMapName"] == "grocer-s3"
        assert spec["securityContext"]["runAsNonRoot"] is True
    trusted = {step for step, spec in platform.items() if "configMapAsVolume" in spec}
    assert trusted == {"classify-shard"}
    for component in (pipeline["root"], pipeline["components"]["comp-for-loop-1"]):
        for task in component["dag"]["tasks"].values():
            assert not task.get("cachingOptions")


def test_submitted_run_has_its_options_and_is_followed(capsys):
    steps = [("find-champion", "SUCCEEDED"), *shards("SUCCEEDED", "SUCCEEDED")]
    steps += [("for-loop-1", "SUCCEEDED"), ("merge-shards", "SUCCEEDED")]
    message = event("message", "merge_shards", text="s3://bucket/2026-11-25.csv: 9 rows")
    logs = {"merge-shards": message}
    with Kubeflow([("SUCCEEDED", steps)], logs=logs) as server:
        options = ["--shards", "2", "--bundle", BUNDLE, "--host", server.url]
        assert execute(["bulk", "submit", *FILES, *options]) == 0
        (run,) = server.runs.values()
        assert {each["display_name"] for each in server.pipelines.values()} == {"grocer-bulk"}
    assert run["runtime_config"]["parameters"] == {
        "data": "s3://bucket/names.csv",
        "out": "s3://bucket/{date}.csv",
        "bundle": BUNDLE,
        "shards": 2,
        "column": "product_name",
        "min_probability": 0.0,
    }
    output = capsys.readouterr().out
    assert "✓ classify_shard 75.0 s" in output
    assert "✓ classify_shard 2 75.0 s" in output
    assert "s3://bucket/2026-11-25.csv: 9 rows" in output
    assert "Gate" not in output


def test_shards_that_started_together_keep_their_numbers(capsys):
    states = [("RUNNING", "RUNNING"), ("SUCCEEDED", "RUNNING"), ("SUCCEEDED", "FAILED")]
    polls = list(zip(("RUNNING", "RUNNING", "FAILED"), (shards(*s) for s in states), strict=True))
    with Kubeflow(polls) as server:
        assert execute(["bulk", "submit", *FILES, "--host", server.url]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "classify_shard" in line] == ["✓", "✗"]


def test_failed_shard_is_reported_with_its_error(user_error):
    failed = event("failed", "classify_shard", text="bundle.json", user_error=True)
    logs = {"classify-shard 2": failed}
    with Kubeflow([("FAILED", shards("SUCCEEDED", "FAILED"))], logs=logs) as server:
        line = user_error("bulk", "submit", *FILES, "--host", server.url)
    # The order of shards that started together is arbitrary.
    assert re.match(r"step classify_shard( 2)? failed: bundle.json; see http://", line)


def test_scheduled_run_uses_the_bundle_deployed_at_its_start():
    with Kubeflow() as server:
        cron = ("--cron", "0 3 * * *")
        assert execute(["bulk", "schedule", *FILES, *cron, "--host", server.url]) == 0
        (recurring_run,) = server.schedules.values()
    assert recurring_run["display_name"] == "grocer-bulk"
    assert "bundle" not in recurring_run["runtime_config"]["parameters"]
    assert recurring_run["runtime_config"]["parameters"]["shards"] == 8


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (("--data", "names.csv", "--out", "s3://b/o.csv"), "--data names.csv: pods cannot access"),
        (("--data", "s3://b/n.csv", "--out", "o.csv"), "--out o.csv: pods cannot access"),
        (
            ("--data", "s3://b/n.csv", "--out", "https://h/o.csv"),
            "--out https://h/o.csv: pods cannot access",
        ),
        (("--data", "s3://b/n.txt", "--out", "s3://b/o.csv"), ".csv"),
        ((*FILES, "--bundle", "s3://b/bundle"), "--bundle s3://b/bundle: not the address"),
        ((*FILES, "--shards", "0"), "Invalid value for '--shards'"),
    ],
)
def test_invalid_option_is_reported_before_connecting(user_error, options, fragment):
    assert fragment in user_error("bulk", "submit", *options, "--host", "http://127.0.0.1:9")


def test_compile_writes_kubernetes_objects(tmp_path):
    out = tmp_path / "bulk.yaml"
    assert execute(["bulk", "compile", str(out), "--recipe", "tiny", "--kubernetes"]) == 0
    pipeline, version = yaml.safe_load_all(out.read_text())
    assert pipeline["metadata"]["name"] == version["spec"]["pipelineName"] == "grocer-bulk"
    assert version["metadata"]["name"].startswith("bulk-tiny-")


def test_bulk_run_writes_the_same_file_as_classify(tmp_path):
    bundle = make_bundle(tmp_path / "bundles", strategy="linear")
    source, out = tmp_path / "names.csv", tmp_path / "out" / "departments.csv"
    names = [f"{word} Milk {i % 50}" for i in range(1500) for word in ("Oat", "Whole", "Crème")]
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(names))
    source.write_text(f"id,product_name\n{rows}", encoding="utf-8")
    pipeline = tmp_path / "bulk.yaml"
    pipeline.write_text(package(recipe("tiny"), on_cluster=False).text)
    arguments = {"data": str(source), "out": str(out), "bundle": str(bundle.path), "shards": 2}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.run(
        [sys.executable, "-c", LOCAL_RUN, tmp_path / "root", pipeline, json.dumps(arguments)],
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert process.stdout.count("4,500 rows in 2 shards at ") == 1
    whole = tmp_path / "whole.csv"
    classify(source, whole, bundle.path)
    assert out.read_bytes() == whole.read_bytes()
    assert set(out.parent.iterdir()) == {out, Path(f"{out}.json")}
