"""Runs in a step pod: deploy a bundle without the checks that would reject an invalid one.

As if its evaluation had compared it with the deployed one. Prints the predictions of the smoke
test, or the decisions of the analysis, if `analysis` is set.

deploy.py URI DEPLOY_CONFIG_JSON
"""

import json
import sys
from pathlib import Path

from grocer.artifacts.metrics import ChampionComparison
from grocer.config.deployment import DeployConfig
from grocer.errors import GrocerError
from grocer.io.storage import file_system
from grocer.release.bundle import LoadedBundle
from grocer.release.manifest import MANIFEST, Manifest
from serving.rollout.deploy import deploy
from serving.rollout.inference_service import read_state
from serving.rollout.kubernetes import Cluster
from serving.rollout.progressive import Products, analyse

PRODUCTS = ["Organic Milk", "Banana Bread"]
uri, config = sys.argv[1], DeployConfig.model_validate_json(sys.argv[2])
digest = uri.rpartition("/")[2]
path = Path("/tmp", digest)
file_system("s3").get(f"{uri.removeprefix('s3://')}/", f"{path}/", recursive=True)
manifest = Manifest.parse((path / MANIFEST).read_bytes(), MANIFEST)
if champion := read_state(Cluster(config.namespace).inference_service(config.name)).champion:
    measured = dict(manifest.evaluation.baselines["linear"])
    comparison = ChampionComparison(
        **measured, digest=champion.digest, number=None, new_products=None
    )
    evaluation = manifest.evaluation.model_copy(update={"champion": comparison})
    manifest = manifest.model_copy(update={"evaluation": evaluation})
bundle = LoadedBundle(path, digest, manifest)
try:
    result = deploy(bundle, config, PRODUCTS)
    if config.analysis:
        products = Products(PRODUCTS, 0.9)
        decisions = analyse(config, products=products, digest=digest)
        result = [decision.model_dump(mode="json") for decision in decisions]
    print(json.dumps(result))
except GrocerError as error:
    sys.exit(f"grocer: {error}")
