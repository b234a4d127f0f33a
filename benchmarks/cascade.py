"""Throughput and accuracy of the cascade, compared with the ensemble of the same models.

    .venv/bin/python benchmarks/cascade.py [--run build/demo] [--names 2000] [--rounds 2]

Loads the adapter, the linear model and the weights that a run has fitted on its validation
products, whichever classifier it has deployed, and classifies the names of its test side as `grocer
classify` does. Both classifiers take turns; the fastest round of each counts. The last line is one
JSON object: `ratio` is names/s, cascade over ensemble; `lost_points` is the accuracy that the
cascade loses, in percentage points.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch

from grocer.artifacts.evaluation import Evaluation
from grocer.errors import GrocerError
from grocer.inference.classifier import Classifier
from grocer.inference.scorer import Scorer
from grocer.model.device import cpu_threads
from grocer.model.linear.classifier import LinearModel
from grocer.progress import say

STRATEGIES = ("ensemble", "cascade")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--run", type=Path, default="build/demo", help="output directory of `grocer run`"
    )
    parser.add_argument("--names", type=int, help="number of test products (default: all)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--token-budget", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(cpu_threads())
    try:
        print(json.dumps(measure(options.run, options.names, options.rounds, options.token_budget)))
    except GrocerError as error:
        parser.error(str(error))


def measure(run: Path, count: int | None, rounds: int, token_budget: int = 1024) -> dict[str, Any]:
    """Return names/s and accuracy of ensemble and cascade on the test products of a run.

    Raises:
        GrocerError: the run has no evaluation, or its parts do not fit together.
    """
    artifacts = run / "artifacts"
    evaluation = Evaluation.read(artifacts / "evaluate")
    scorer = Scorer.load(artifacts / "train", token_budget=token_budget)
    linear = LinearModel.load(artifacts / "evaluate")
    test = pd.read_parquet(artifacts / "build_dataset" / "test.parquet")
    # Shuffled: neighbours may be alike.
    test = test.sample(n=min(count or len(test), len(test)), random_state=0)
    names, truth = test["product_name"].tolist(), test["department"].to_numpy()
    models = {
        strategy: Classifier(evaluation.classifiers[strategy].combination, scorer, linear)
        for strategy in STRATEGIES
    }
    models["ensemble"].predict(names[:64])  # warm-up
    seconds = dict.fromkeys(STRATEGIES, float("inf"))
    accuracy = {}
    for number in range(rounds):
        for strategy, model in models.items():
            started = time.perf_counter()
            predicted = model.predict(names).predicted_labels
            elapsed = time.perf_counter() - started
            say("benchmark", f"round {number + 1}, {strategy}: {len(names) / elapsed:.1f} names/s")
            seconds[strategy] = min(seconds[strategy], elapsed)
            accuracy[strategy] = float(np.mean(np.asarray(predicted) == truth))
    cascade = models["cascade"]
    return {
        "ratio": seconds["ensemble"] / seconds["cascade"],
        "lost_points": 100 * (accuracy["ensemble"] - accuracy["cascade"]),
        "names": len(names),
        "names_per_second": {each: len(names) / seconds[each] for each in STRATEGIES},
        "accuracy": accuracy,
        "threshold": cascade.combination.threshold,
        "language_model_share": float(
            np.mean([product.tokens > 0 for product in cascade.encode(names)])
        ),
    }


if __name__ == "__main__":
    main()
