"""prompts: the labelled products as prompts and completions, split by name."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def prompts(
    tables: dsl.Input[dsl.Dataset],
    config: str,
    splits: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.HTML],
):
    """Write the train, validation and test tables, the label set, the template, and their page."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.dataset import build as examples

    source, target = Path(tables.path), Path(splits.path)
    with step("prompts", target, {"tables": source}) as out:
        report = examples.build(source, RunConfig.from_json(config), out)
    shutil.copyfile(target / "split.html", page.path)
    splits.metadata.update(report["products"], overlap=sum(report["overlap"].values()))
