"""join: the answered shards as one table again."""

from typing import List  # noqa: UP035  (kfp names the parameter's type by it)

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def join(shards: List[str], rows: List[int], metrics: dsl.Output[dsl.Metrics]):  # noqa: UP006
    """Join them in the table's order; `rows` has the rows of each, and makes this step the last."""
    from grocer.artifacts.step import explained
    from grocer.inference import sharded as tables

    with explained("join"):
        counts = tables.join(shards)
    for name, count in counts.items():
        metrics.log_metric(name, float(count))
