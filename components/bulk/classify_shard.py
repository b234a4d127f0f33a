"""classify_shard: predict the department of each product in one shard."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def classify_shard(shard: str) -> int:
    """Classify a shard with the bundle that its plan names; return its number of rows."""
    from grocer.artifacts.step import reported

    with reported("classify_shard"):
        from grocer.inference import sharded

        return sharded.classify_shard(shard)["rows"]
