"""ingest: the source's tables, joined and counted."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def ingest(data: str, config: str, tables: dsl.Output[dsl.Dataset]):
    """Read `data` into Parquet tables and `counts.json`."""
    from pathlib import Path

    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.ingest.run import run

    with step("ingest", Path(tables.path)) as out:
        counts = run(data, RunConfig.from_json(config).data, out)
    tables.metadata.update(counts.order_lines.model_dump(), products=counts.products)
