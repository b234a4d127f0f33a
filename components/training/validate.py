"""validate: check the tables against the expectations; the run ends here if one fails."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def validate(
    tables: dsl.Input[dsl.Dataset],
    config: str,
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
):
    """Validate the tables; the report is complete before a failure is raised."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.step import recorded, reported

    source = Path(tables.path)
    with reported("validate"):
        from grocer.artifacts.counts import Counts
        from grocer.config.run import RunConfig
        from grocer.validation.run import run

        with recorded("validate", Path(report.path), {"tables": source}) as out:
            result = run(Counts.read(source), RunConfig.from_json(config), out)
            shutil.copyfile(out / "validation.html", page.path)
        result.require_success()
