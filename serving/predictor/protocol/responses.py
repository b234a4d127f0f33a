"""Render responses from scores.

V1 responses are dictionaries: instances of the models would more than double the time of
rendering. The contract tests validate responses against the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from kserve import InferOutput, InferResponse
from kserve.protocol.infer_type import RequestedOutput

from grocer.inference.scores import Scores
from serving.predictor.protocol.requests import PredictionRequest

DECIMALS = 6
"""Decimals of V1 probabilities; `min_probability` is compared with rounded values."""


def render_v1(request: PredictionRequest, scores: Scores) -> dict[str, Any]:
    """Return the body of V1 predict.

    `department` and `aisle` are None if their probability is below `min_probability`.
    """
    order, values = scores.top(request.top_k)
    predictions = []
    for indices, row in zip(order.tolist(), values.round(DECIMALS).tolist(), strict=True):
        alternatives = [
            {"department": scores.labels[index], "probability": value}
            for index, value in zip(indices, row, strict=True)
        ]
        confident = row[0] >= request.min_probability
        predictions.append(
            {
                "department": scores.labels[indices[0]] if confident else None,
                "probability": row[0],
                "alternatives": alternatives,
            }
        )
    if scores.leaves:
        probabilities = scores.aisle_confidence.round(DECIMALS).tolist()
        aisles = _aisles(request, scores)
        for prediction, aisle, value in zip(predictions, aisles, probabilities, strict=True):
            prediction |= {"aisle": aisle or None, "aisle_probability": value}
    return {"predictions": predictions}


def render_v2(
    request: PredictionRequest, scores: Scores, model: str, version: str
) -> InferResponse:
    """Return the requested outputs.

    `department` and `aisle` are empty if their probability is below `min_probability`.
    """
    order, values = scores.top(request.top_k)
    ranked = np.array(scores.labels, dtype=object)[order]
    confident = values[:, 0].round(DECIMALS) >= request.min_probability
    tensors = {
        "department": np.where(confident, ranked[:, 0], ""),
        "probability": values[:, 0],
        "ranked_departments": ranked,
        "ranked_probabilities": values,
    }
    if scores.leaves:
        tensors["aisle"] = np.array(_aisles(request, scores), dtype=object)
        tensors["aisle_probability"] = scores.aisle_confidence
    requested, outputs = request.outputs, []
    for name, binary in requested.items():
        text = tensors[name].dtype == object
        tensor = tensors[name] if text else tensors[name].astype(np.float32)
        # gRPC sends an array as raw bytes and a list as contents, whatever was requested.
        data = tensor if binary else tensor.ravel().tolist()
        outputs.append(InferOutput(name, list(tensor.shape), "BYTES" if text else "FP32", data))
    return InferResponse(
        response_id=request.id,
        model_name=model,
        model_version=version,
        infer_outputs=outputs,
        requested_outputs=[RequestedOutput(n, {"binary_data": b}) for n, b in requested.items()],
    )


def output_types(outputs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metadata of the V2 outputs."""
    types = ["FP32" if "probabilit" in name else "BYTES" for name in outputs]
    shapes = [[-1, -1] if name.startswith("ranked") else [-1] for name in outputs]
    columns = zip(outputs, types, shapes, strict=True)
    return [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in columns]


def variants(names: Sequence[str]) -> list[str]:
    """Return each name, followed by the name without each of its words."""
    result = []
    for name in names:
        words = name.split()
        result += [name, *(" ".join(words[:i] + words[i + 1 :]) for i in range(len(words)))]
    return result


def render_explanations(names: Sequence[str], scores: Scores) -> dict[str, Any]:
    """Return the body of V1 explain.

    The effect of a word is the probability of the predicted department minus its probability
    without the word. Words interact: effects do not add up. Aisles are not explained.

    Args:
        scores: scores of `variants(names)`.
    """
    explanations, start = [], 0
    for name in names:
        words = name.split()
        stop = start + 1 + len(words)
        predicted = scores.predicted[start]
        whole, *without = scores.probabilities[start:stop, predicted].tolist()
        effects = [
            {"word": word, "effect": round(whole - value, DECIMALS)}
            for word, value in zip(words, without, strict=True)
        ]
        department, probability = scores.labels[predicted], round(whole, DECIMALS)
        explanations.append(
            {"department": department, "probability": probability, "words": effects}
        )
        start = stop
    return {"explanations": explanations}


def _aisles(request: PredictionRequest, scores: Scores) -> list[str]:
    """Return the aisle of each product; empty if it is not confident, or has none."""
    confident = scores.aisle_confidence.round(DECIMALS) >= request.min_probability
    return [a if ok else "" for a, ok in zip(scores.predicted_aisles, confident, strict=True)]
