"""classify: the departments of one shard's names."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def classify(shard: str) -> int:
    """Answer a shard with the bundle that its plan names; how many rows it has."""
    from grocer.artifacts.step import explained
    from grocer.inference.sharded import answer

    with explained("classify"):
        return answer(shard)["rows"]
