"""champion: the bundle that serves now, which a new adapter has to beat."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def champion(config: str, given: str) -> str:
    """Find it by the InferenceService, unless one is `given`; empty before the first deploy."""
    from grocer.config import RunConfig
    from grocer.console import say
    from grocer.step import explained
    from serving.deploy import champion

    with explained("champion"):
        found = given or champion(RunConfig.from_json(config).deploy)
    say("champion", found or "none serves yet")
    return found
