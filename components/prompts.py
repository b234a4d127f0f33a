"""prompts: the labelled products as prompts and completions, split by name."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def prompts(tables: dsl.Input[dsl.Dataset], config: str, splits: dsl.Output[dsl.Dataset]):
    """Write the train, validation and test tables, the label set and the template."""
    from pathlib import Path

    from grocer import examples
    from grocer.config import RunConfig
    from grocer.step import step

    source = Path(tables.path)
    with step("prompts", Path(splits.path), {"tables": source}) as out:
        report = examples.build(source, RunConfig.from_json(config), out)
    splits.metadata.update(report["products"], overlap=sum(report["overlap"].values()))
