"""The training pipeline behind a first step that decides whether a retraining is due."""

from kfp import dsl

from components.images import IMAGES, Images
from components.retraining.check_due import check_due
from components.retraining.record_attempt import record_attempt
from grocer.config.run import RunConfig
from pipelines.kubeflow import resources
from pipelines.kubeflow.compiled import Package
from pipelines.kubeflow.training import configure, judged_artifacts, training_steps


def package(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Package:
    """Return the pipeline for `run`; `training.package` describes what it has in common.

    If no retraining is due, all other steps are skipped, and the run succeeds. On a cluster, every
    run that the gate judged is recorded in `state`; a local run's output directory has the record.
    """
    config_default = (resources.with_mount_paths(run) if on_cluster else run).to_json()
    text = "Train and deploy a classifier of products by department if it is due"

    @resources.pipeline("grocer-retraining", text, run)
    def retraining(
        data: str,
        when: str,
        state: str,
        metrics: str = "",
        cool_down_days: float = 7.0,
        config: str = config_default,
        champion: str = "",
    ) -> bool:
        due = check_due(
            config=config,
            when=when,
            metrics=metrics,
            cool_down_days=cool_down_days,
            state=state,
            champion=champion,
        )
        with dsl.If(due.outputs["Output"] == True, name="due"):  # noqa: E712
            tasks = training_steps(run, images, data, config, champion, on_cluster)
            if on_cluster:
                judged = judged_artifacts(tasks)
                tasks["record_attempt"] = record_attempt(**judged, config=config, state=state)
        configure({"check_due": due, **tasks}, images, run, on_cluster)
        return due.outputs["Output"]

    return Package(retraining, run.recipe)
