"""classify_shard: predict the department of each product in one shard."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def classify_shard(shard: str) -> int:
    """Classify a shard with the bundle that its plan names; return its number of rows."""
    from grocer.artifacts.step import explained
    from grocer.inference import sharded

    with explained("classify_shard"):
        return sharded.classify_shard(shard)["rows"]
