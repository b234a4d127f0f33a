"""The pipeline that classifies whole files: cut into shards, answered side by side, joined."""

from typing import Any

from kfp import dsl

from components.classify_shard import classify_shard
from components.find_champion import find_champion
from components.images import IMAGES, Images
from components.merge_shards import merge_shards
from components.shard_table import shard_table
from grocer.config.run import RunConfig
from pipelines.kubeflow.compiled import Package
from pipelines.kubeflow.resources import harden, on_cpu, reach_store, retry, with_model


def build(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Any:
    """The pipeline, whose pods ask for what `run.cluster` says.

    Parameters: `data` and `out` are addresses of CSV or Parquet, `bundle` the address of the
    bundle that answers; empty: of the one that `run.deploy` serves when the run begins.
    """
    cluster = run.cluster
    lasts = dsl.PipelineConfig(active_deadline_seconds=cluster.run_timeout_seconds)

    @dsl.pipeline(
        name="grocer-bulk",
        description="The department of every product in a file",
        pipeline_config=lasts,
    )
    def bulk(
        data: str,
        out: str,
        bundle: str = "",
        shards: int = 8,
        column: str = "product_name",
        min_probability: float = 0.0,
        config: str = run.to_json(),
    ) -> None:
        served = find_champion(config=config, bundle=bundle)
        pieces = shard_table(
            data=data,
            out=out,
            bundle=served.output,
            shards=shards,
            column=column,
            min_probability=min_probability,
        )
        with dsl.ParallelFor(pieces.output, name="shards") as shard:
            answered = classify_shard(shard=shard)
        joined = merge_shards(shards=pieces.output, rows=dsl.Collected(answered.output))

        on_cpu(served, images.serve, cluster)
        for task in (pieces, joined):
            on_cpu(task, images.data, cluster)
        with_model(answered, images.serve, run)
        for task in (served, pieces, answered, joined):
            reach_store(task, cluster)
            harden(task)
            # A file, and what serves, can change under an unchanged name.
            task.set_caching_options(False)
            if on_cluster:
                retry(task, cluster.retries)

    return bulk


def package(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Package:
    """The pipeline for `run`, to be compiled."""
    return Package(build(run, images, on_cluster=on_cluster), f"bulk-{run.recipe}")
