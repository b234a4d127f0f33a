"""shard_table: split a table into shards that are classified in parallel."""

from typing import List  # noqa: UP035  (kfp derives the parameter's type from this name)

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def shard_table(
    data: str,
    out: str,
    bundle: str,
    shards: int,
    column: str,
    min_probability: float,
    previous: str,
    corrections: str,
) -> List[str]:  # noqa: UP006
    """Write the shards next to the output; return their addresses in table order."""
    from grocer.artifacts.step import reported

    with reported("shard_table"):
        from grocer.inference import sharded

        return sharded.shard_table(
            data,
            out,
            bundle,
            shards=int(shards),
            column=column,
            min_probability=min_probability,
            previous=previous,
            corrections=corrections,
        )
