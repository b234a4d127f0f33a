"""merge_shards: concatenate the classified shards into one table."""

from typing import List  # noqa: UP035  (kfp derives the parameter's type from this name)

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def merge_shards(
    shards: List[str],  # noqa: UP006
    rows: List[int],  # noqa: UP006
    metrics: dsl.Output[dsl.Metrics],
):
    """Merge shards in table order, and write the rows below the confidence limit as review queue.

    `rows` makes this step wait for every `classify_shard`.
    """
    from grocer.artifacts.step import reported

    with reported("merge_shards"):
        from grocer.inference import sharded
        from grocer.review.bulk import write_bulk_queue

        counts = sharded.merge_shards(shards)
        counts["to_review"] = write_bulk_queue(sharded.output_of(shards[0]))
    for name, count in counts.items():
        metrics.log_metric(name, float(count))
