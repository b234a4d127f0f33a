"""champion: the bundle that serves now, which a new adapter has to beat."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def champion(config: str, given: str) -> str:
    """Find it by the InferenceService, unless one is `given`; empty before the first deploy."""
    from grocer.artifacts.step import explained
    from grocer.config.run import RunConfig
    from grocer.progress import say
    from serving.rollout.deploy import champion

    with explained("champion"):
        found = given or champion(RunConfig.from_json(config).deploy)
    say("champion", found or "none serves yet")
    return found
