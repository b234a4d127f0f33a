"""Answers of both protocols, out of a probability for each item and label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from kserve import InferOutput, InferResponse
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

from serving.protocol import OUTPUTS, Ask


def ranked(
    probabilities: NDArray[np.float64], top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """[n, k] labels' indices and probabilities, best first; the label set's order breaks ties."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    return order, np.take_along_axis(probabilities, order, axis=1)


def v1(ask: Ask, probabilities: NDArray[np.float64], labels: Sequence[str]) -> dict[str, Any]:
    """`{"predictions": [{"department", "probability", "alternatives": […]}]}`.

    `alternatives` are the `top_k` best departments, the answer first. `department` is null
    where the best probability is below `min_probability`.
    """
    order, values = ranked(probabilities, ask.top_k)
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
    return {"predictions": answers}


def v2(
    ask: Ask, probabilities: NDArray[np.float64], labels: Sequence[str], model: str, version: str
) -> InferResponse:
    """The outputs asked for: BYTES [n], FP32 [n], BYTES [n, k], FP32 [n, k].

    `department` is empty where the best probability is below `min_probability`.
    """
    assert ask.outputs is not None
    order, values = ranked(probabilities, ask.top_k)
    names = np.array(labels, dtype=object)[order]
    sure = values[:, 0].round(6) >= ask.min_probability
    tensors = {
        "department": np.where(sure, names[:, 0], ""),
        "probability": values[:, 0].astype(np.float32),
        "ranked_departments": names,
        "ranked_probabilities": values.astype(np.float32),
    }
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


def output_types() -> list[dict[str, Any]]:
    """The V2 metadata's outputs."""
    types = {name: "FP32" if "probabilit" in name else "BYTES" for name in OUTPUTS}
    shapes = {name: [-1, -1] if name.startswith("ranked") else [-1] for name in OUTPUTS}
    return [{"name": n, "datatype": types[n], "shape": shapes[n]} for n in OUTPUTS]
