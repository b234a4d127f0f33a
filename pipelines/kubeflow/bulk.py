"""The bulk pipeline: split a file into shards, classify them in parallel, merge the results."""

from kfp import dsl

from components.bulk.classify_shard import classify_shard
from components.bulk.merge_shards import merge_shards
from components.bulk.shard_table import shard_table
from components.images import IMAGES, Images
from components.training.find_champion import find_champion
from grocer.config.run import RunConfig
from pipelines.kubeflow import resources
from pipelines.kubeflow.compiled import Package


def package(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Package:
    """Return the pipeline, with the pod resources of `run.cluster`.

    Parameters of the pipeline: `data` and `out` are addresses of CSV or Parquet files; `bundle`
    is the address of a bundle, by default the one that is deployed when the run starts. With a
    limit `min_probability`, the rows below it are also written as a review queue, OUT-review.csv.
    Predictions in `previous`, an earlier output of the same bundle, are kept; labels in the table
    `corrections` replace predictions.
    """

    @resources.pipeline("grocer-bulk", "Classify every product in a file by department", run)
    def bulk(
        data: str,
        out: str,
        bundle: str = "",
        shards: int = 8,
        column: str = "product_name",
        min_probability: float = 0.0,
        previous: str = "",
        corrections: str = "",
        config: str = run.to_json(),
    ) -> None:
        champion = find_champion(config=config, bundle=bundle)
        table = shard_table(
            data=data,
            out=out,
            bundle=champion.output,
            shards=shards,
            column=column,
            min_probability=min_probability,
            previous=previous,
            corrections=corrections,
        )
        with dsl.ParallelFor(table.output, name="shards") as shard:
            predictions = classify_shard(shard=shard)
        merged = merge_shards(shards=table.output, rows=dsl.Collected(predictions.output))

        resources.use_cpu(champion, images.serve, run)
        resources.use_cpu(table, images.data, run)
        resources.use_cpu(merged, images.data, run)
        resources.use_model(predictions, images.serve, run)
        resources.mount_trust(predictions)
        for task in (champion, table, predictions, merged):
            resources.use_object_store(task, run.cluster)
            resources.harden(task)
            # Files and the deployed bundle can change under an unchanged name.
            task.set_caching_options(False)
        if on_cluster:
            resources.retry(predictions, run.cluster.retries)

    return Package(bulk, f"bulk-{run.recipe}")
