"""Protects the pipeline that classifies whole files: its shape, its commands, and a whole run.

The run is the compiled pipeline in kfp's local runner, each task a process of its own, with a
real model.
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
from tests.fixtures.kubeflow_server import Kubeflow

FILES = ("--data", "s3://bucket/names.csv", "--out", "s3://bucket/{date}.csv")
BUNDLE = f"s3://bucket/bundles/{'b' * 64}"
RUN = """
import json, sys
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1], enable_caching=False)
components.load_component_from_file(sys.argv[2])(**json.loads(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def compiled():
    made = package(recipe("llama2-7b-t4"))
    pipeline, platform = yaml.safe_load_all(made.text)
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_shards_are_classified_side_by_side_on_what_the_model_needs(compiled):
    pipeline, platform = compiled
    loop = pipeline["root"]["dag"]["tasks"]["for-loop-1"]
    assert (
        loop["parameterIterator"]["items"]["inputParameter"]
        == "pipelinechannel--shard-table-Output"
    )
    inner = pipeline["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inner) == {"classify-shard"}
    assert {step for step, asked in platform.items() if "nodeSelector" in asked} == {
        "exec-classify-shard"
    }
    assert "for-loop-1" in pipeline["root"]["dag"]["tasks"]["merge-shards"]["dependentTasks"]


def test_every_step_reaches_the_store_and_none_is_root_or_cached(compiled):
    pipeline, platform = compiled
    assert set(platform) == {
        "exec-find-champion",
        "exec-shard-table",
        "exec-classify-shard",
        "exec-merge-shards",
    }
    for asked in platform.values():
        assert "grocer-s3" in {each["secretName"] for each in asked["secretAsEnv"]}
        assert asked["configMapAsEnv"][0]["configMapName"] == "grocer-s3"
        assert asked["securityContext"]["runAsNonRoot"] is True
    bodies = [pipeline["root"], pipeline["components"]["comp-for-loop-1"]]
    for body in bodies:
        for task in body["dag"]["tasks"].values():
            assert not task.get("cachingOptions")


def test_a_run_is_submitted_with_its_options_and_followed(capsys):
    steps = [
        ("find-champion", "SUCCEEDED"),
        ("shard-table", "SUCCEEDED"),
        ("for-loop-1", "SUCCEEDED"),
    ]
    steps += [
        ("classify-shard", "SUCCEEDED"),
        ("classify-shard", "SUCCEEDED"),
        ("merge-shards", "SUCCEEDED"),
    ]
    logs = {"merge-shards": "grocer | merge_shards | s3://bucket/2026-11-25.csv: 9 rows, 9 named\n"}
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
    told = capsys.readouterr().out
    assert "✓ classify-shard 75 s" in told
    assert "✓ classify-shard 2 75 s" in told
    assert "s3://bucket/2026-11-25.csv: 9 rows, 9 named" in told
    assert "Verdict" not in told


def test_shards_that_began_together_keep_their_numbers(capsys):
    begun = [
        ("shard-table", "SUCCEEDED"),
        ("classify-shard", "RUNNING"),
        ("classify-shard", "RUNNING"),
    ]
    ended = [
        ("shard-table", "SUCCEEDED"),
        ("classify-shard", "SUCCEEDED"),
        ("classify-shard", "RUNNING"),
    ]
    failed = [
        ("shard-table", "SUCCEEDED"),
        ("classify-shard", "SUCCEEDED"),
        ("classify-shard", "FAILED"),
    ]
    with Kubeflow([("RUNNING", begun), ("RUNNING", ended), ("FAILED", failed)]) as server:
        assert execute(["bulk", "submit", *FILES, "--host", server.url]) == 1
    told = capsys.readouterr().out
    marks = [line.split()[0] for line in told.splitlines() if "classify-shard" in line]
    assert marks == ["✓", "✗"]


def test_a_shard_that_fails_ends_it_with_its_own_line(capsys):
    steps = [
        ("shard-table", "SUCCEEDED"),
        ("classify-shard", "SUCCEEDED"),
        ("classify-shard", "FAILED"),
    ]
    logs = {"classify-shard 2": "grocer ! classify_shard | bundle.json: another base\n"}
    with Kubeflow([("FAILED", steps)], logs=logs) as server:
        assert execute(["bulk", "submit", *FILES, "--host", server.url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    # Which of two that began together has which number is the server's order.
    assert re.match(
        r"grocer: classify-shard( 2)?: bundle.json: another base; its page: http://", line
    )


def test_a_schedule_asks_the_bundle_that_serves_then():
    with Kubeflow() as server:
        cron = ("--cron", "0 3 * * *")
        assert execute(["bulk", "schedule", *FILES, *cron, "--host", server.url]) == 0
        (made,) = server.schedules.values()
    assert made["display_name"] == "grocer-bulk"
    assert "bundle" not in made["runtime_config"]["parameters"]
    assert made["runtime_config"]["parameters"]["shards"] == 8


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--data", "names.csv", "--out", "s3://b/o.csv"), "--data names.csv: a pod can't reach"),
        (("--data", "s3://b/n.csv", "--out", "o.csv"), "--out o.csv: a pod can't reach a path"),
        (("--data", "s3://b/n.csv", "--out", "https://h/o.csv"), "no address that a pod can reach"),
        (("--data", "s3://b/n.txt", "--out", "s3://b/o.csv"), "expected a name that ends in .csv"),
        ((*FILES, "--bundle", "s3://b/bundle"), "--bundle s3://b/bundle: no bundle's address"),
        ((*FILES, "--shards", "0"), "Invalid value for '--shards'"),
    ],
)
def test_a_mistake_is_told_before_any_server_is_asked(capsys, options, line):
    assert execute(["bulk", "submit", *options, "--host", "http://127.0.0.1:9"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


def test_it_compiles_for_gitops(tmp_path):
    out = tmp_path / "bulk.yaml"
    assert execute(["bulk", "compile", str(out), "--recipe", "tiny", "--kubernetes"]) == 0
    pipeline, version = yaml.safe_load_all(out.read_text())
    assert pipeline["metadata"]["name"] == version["spec"]["pipelineName"] == "grocer-bulk"
    assert version["metadata"]["name"].startswith("bulk-tiny-")


def test_a_whole_run_gives_what_classify_gives(tmp_path, base):
    bundle = make_bundle(tmp_path / "bundles", base=base)
    source, out = tmp_path / "names.csv", tmp_path / "out" / "answers.csv"
    names = [f"{word} Milk {i % 50}" for i in range(1500) for word in ("Oat", "Whole", "Crème")]
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(names))
    source.write_text(f"id,product_name\n{rows}", encoding="utf-8")
    compiled = tmp_path / "bulk.yaml"
    compiled.write_text(package(recipe("tiny"), on_cluster=False).text)
    given = {"data": str(source), "out": str(out), "bundle": str(bundle.path), "shards": 2}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "root"), str(compiled), json.dumps(given)],
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.stdout.count("grocer | shard_table | 4,500 rows in 2 shards at ") == 1
    assert "4,500 rows, 4,500 named, 0 unsure, 0 blank" in ran.stdout
    whole = tmp_path / "whole.csv"
    classify(source, whole, bundle.path)
    assert out.read_bytes() == whole.read_bytes()
    assert list(out.parent.iterdir()) == [out]
