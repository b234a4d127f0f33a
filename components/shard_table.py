"""cut: a table of names in shards, each to be classified on its own."""

from typing import List  # noqa: UP035  (kfp names the parameter's type by it)

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def cut(
    data: str, out: str, bundle: str, shards: int, column: str, min_probability: float
) -> List[str]:  # noqa: UP006
    """Write the shards beside the output; their addresses, in the table's order."""
    from grocer.artifacts.step import explained
    from grocer.inference import sharded as tables

    with explained("cut"):
        return tables.cut(
            data,
            out,
            bundle,
            shards=int(shards),
            column=column,
            min_probability=min_probability,
        )
