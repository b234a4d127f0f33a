"""Answers of both protocols, out of a probability for each item and label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from kserve import InferOutput, InferResponse
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

from grocer.inference.scores import Scores
from serving.predictor.protocol import Ask


def v1(ask: Ask, scores: Scores) -> dict[str, Any]:
    """`{"predictions": [{"department", "probability", "alternatives": […]}]}`.

    `alternatives` are the `top_k` best departments, the answer first. `department` is null
    where the best probability is below `min_probability`. Where departments have aisles, there
    are `aisle` and `aisle_probability` too: the likeliest aisle of the likeliest department,
    null where its probability is below `min_probability`, or there is none and that is 0.
    """
    order, values = scores.top(ask.top_k)
    labels = scores.labels
    answers = []
    for indices, row in zip(order.tolist(), values.round(6).tolist(), strict=True):
        alternatives = [
            {"department": labels[index], "probability": value}
            for index, value in zip(indices, row, strict=True)
        ]
        sure = row[0] >= ask.min_probability
        answers.append(
            {
                "department": labels[indices[0]] if sure else None,
                "probability": row[0],
                "alternatives": alternatives,
            }
        )
    if scores.leaves:
        aisles, shares = _aisles(ask, scores)
        for answer, aisle, share in zip(answers, aisles, shares.round(6).tolist(), strict=True):
            answer |= {"aisle": aisle or None, "aisle_probability": share}
    return {"predictions": answers}


def _aisles(ask: Ask, scores: Scores) -> tuple[list[str], NDArray[np.float64]]:
    """The likeliest aisle of each item, empty where it is not sure enough, and its probability."""
    shares = scores.aisle_confidence
    sure = shares.round(6) >= ask.min_probability
    named = scores.predicted_aisles
    return [aisle if there else "" for aisle, there in zip(named, sure, strict=True)], shares


def v2(ask: Ask, scores: Scores, model: str, version: str) -> InferResponse:
    """The outputs asked for: BYTES [n], FP32 [n], BYTES [n, k], FP32 [n, k].

    `department` is empty where the best probability is below `min_probability`. Where departments
    have aisles, `aisle` BYTES [n] and `aisle_probability` FP32 [n] are there too, as in V1.
    """
    assert ask.outputs is not None
    order, values = scores.top(ask.top_k)
    names = np.array(scores.labels, dtype=object)[order]
    sure = values[:, 0].round(6) >= ask.min_probability
    tensors = {
        "department": np.where(sure, names[:, 0], ""),
        "probability": values[:, 0].astype(np.float32),
        "ranked_departments": names,
        "ranked_probabilities": values.astype(np.float32),
    }
    if scores.leaves:
        aisles, shares = _aisles(ask, scores)
        tensors["aisle"] = np.array(aisles, dtype=object)
        tensors["aisle_probability"] = shares.astype(np.float32)
    outputs, requested = [], []
    for name, binary in ask.outputs:
        tensor = tensors[name]
        kind = "BYTES" if tensor.dtype == object else "FP32"
        # gRPC sends an array raw, whatever was asked for; a list goes as its contents.
        data = tensor if binary else tensor.ravel().tolist()
        outputs.append(InferOutput(name, list(tensor.shape), kind, data))
        requested.append(RequestedOutput(name, {"binary_data": binary}))
    return InferResponse(
        response_id=ask.id or "",
        model_name=model,
        model_version=version,
        infer_outputs=outputs,
        requested_outputs=requested,
        use_binary_outputs=any(binary for _, binary in ask.outputs),
    )


def input_types() -> list[dict[str, Any]]:
    """The V2 metadata's inputs."""
    return [{"name": "product_name", "datatype": "BYTES", "shape": [-1]}]


def output_types(outputs: Sequence[str]) -> list[dict[str, Any]]:
    """The V2 metadata's outputs."""
    types = {name: "FP32" if "probabilit" in name else "BYTES" for name in outputs}
    shapes = {name: [-1, -1] if name.startswith("ranked") else [-1] for name in outputs}
    return [{"name": n, "datatype": types[n], "shape": shapes[n]} for n in outputs]
