"""ingest: the source's tables, joined and counted."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def ingest(data: str, config: str, tables: dsl.Output[dsl.Dataset]):
    """Read `data` into Parquet tables and `counts.json`."""
    from pathlib import Path

    from grocer import ingest
    from grocer.config import RunConfig
    from grocer.step import step

    with step("ingest", Path(tables.path)) as out:
        counts = ingest.ingest(data, RunConfig.from_json(config).data, out)
    tables.metadata.update(counts["order_lines"], products=counts["products"])
