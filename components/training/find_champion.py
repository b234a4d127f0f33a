"""find_champion: look up the deployed bundle, which a new adapter must beat."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def find_champion(config: str, bundle: str) -> str:
    """Return `bundle` if it is set, else the deployed one; empty before the first deployment."""
    from grocer.artifacts.step import reported
    from grocer.progress import say

    with reported("find_champion"):
        from grocer.config.run import RunConfig
        from serving.rollout import deploy

        champion = bundle or deploy.champion(RunConfig.from_json(config).deploy)
        say("find_champion", champion or "no bundle is deployed yet")
    return champion
