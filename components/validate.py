"""validate: the expectations on the tables; the run ends here when one fails."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def validate(
    tables: dsl.Input[dsl.Dataset],
    config: str,
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
):
    """Check the tables; the report and its page are whole before a failure is raised."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.counts import Counts
    from grocer.artifacts.step import explained, step
    from grocer.config.run import RunConfig
    from grocer.validation.run import run

    source, target = Path(tables.path), Path(report.path)
    with step("validate", target, {"tables": source}) as out:
        result = run(Counts.read(source), RunConfig.from_json(config), out)
    shutil.copyfile(target / "validation.html", page.path)
    with explained("validate"):
        result.require_success()
