"""build_dataset: split the labelled products into train, validation and test examples."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def build_dataset(
    tables: dsl.Input[dsl.Dataset],
    config: str,
    splits: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.HTML],
):
    """Write the three splits, the label set, the prompt template and the report page."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.step import step

    source = Path(tables.path)
    with step("build_dataset", Path(splits.path), {"tables": source}) as out:
        from grocer.artifacts.counts import Counts
        from grocer.config.run import RunConfig
        from grocer.dataset.run import run

        result = run(Counts.read(source), RunConfig.from_json(config), out)
        shutil.copyfile(out / "split.html", page.path)
        overlap = sum(result.overlap.model_dump().values())
        splits.metadata.update(dict(result.products), overlap=overlap)
