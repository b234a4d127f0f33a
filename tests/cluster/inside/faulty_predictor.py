"""Runs instead of the predictor: some bundles fail, are slow, or have shuffled labels.

faulty_predictor.py FAULTS_JSON ARGUMENTS...: faults by the digest of the bundle.
"""

import asyncio
import json
import os
import random
import runpy
import sys
from collections.abc import Sequence

import numpy as np

from grocer.inference.scores import Scores
from serving.predictor.model import Predictor

fault = json.loads(sys.argv.pop(1)).get(os.environ["GROCER_BUNDLE_DIGEST"])
score = Predictor._score


async def faulty_score(self: Predictor, names: Sequence[str]) -> Scores:
    if fault == "errors" and random.random() < 0.1:
        raise RuntimeError("injected by the test")
    if fault == "slow":
        await asyncio.sleep(0.2)
    scores = await score(self, names)
    if fault == "labels":
        return Scores.flat(scores.labels, np.roll(scores.probabilities, 1, axis=1))
    return scores


Predictor._score = faulty_score
runpy.run_module("serving.predictor", run_name="__main__", alter_sys=True)
