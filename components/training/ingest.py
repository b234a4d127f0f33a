"""ingest: join and count the source's tables."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def ingest(data: str, config: str, tables: dsl.Output[dsl.Dataset]):
    """Read the catalogue at `data` into Parquet tables and `counts.json`."""
    from pathlib import Path

    from grocer.artifacts.step import step

    with step("ingest", Path(tables.path)) as out:
        from grocer.config.run import RunConfig
        from grocer.ingest.run import run

        settings = RunConfig.from_json(config)
        counts = run(data, settings.data, out, settings.catalogue.label)
        tables.metadata.update(counts.order_lines.model_dump(), products=counts.products)
