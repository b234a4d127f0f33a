"""In a pod: deploy the bundle at an address, without the checks that would keep a bad one away.

step.py ADDRESS DEPLOY_CONFIG_AS_JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grocer.config.deployment import DeployConfig
from grocer.errors import GrocerError
from grocer.io import storage as remote
from grocer.release.bundle import MANIFEST, Bundle, Manifest
from serving.rollout.deploy import deploy

address, config = sys.argv[1], DeployConfig.model_validate_json(sys.argv[2])
digest = address.rpartition("/")[2]
path = Path("/tmp", digest)
remote.file_system("s3").get(f"{address.removeprefix('s3://')}/", f"{path}/", recursive=True)
bundle = Bundle(path, digest, Manifest.parse((path / MANIFEST).read_bytes(), MANIFEST))
try:
    print(json.dumps(deploy(bundle, config, ["Organic Milk", "Banana Bread"])))
except GrocerError as error:
    sys.exit(f"grocer: {error}")
