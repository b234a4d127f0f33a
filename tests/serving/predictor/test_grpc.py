"""gRPC: disabled by default, with the same limits and errors as HTTP."""

import asyncio
from types import SimpleNamespace
from unittest.mock import AsyncMock

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import servicer
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from grocer.release.bundle import LoadedBundle
from serving.predictor.errors import RequestError
from serving.predictor.grpc_server import Servicer, _Admission
from tests.fixtures.artifacts import LABELS
from tests.fixtures.ports import free_port
from tests.fixtures.predictor import StubScorer
from tests.fixtures.predictor_process import Start
from tests.serving.predictor.protocol.test_requests import encode
from tests.serving.predictor.test_server import wait_for


def request(*names: bytes, shape: int | None = None, **parameters: int) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="product_name",
        datatype="BYTES",
        shape=[len(names) if shape is None else shape],
        contents=pb.InferTensorContents(bytes_contents=names),
    )
    values = {name: pb.InferParameter(int64_param=value) for name, value in parameters.items()}
    return pb.ModelInferRequest(model_name="grocer", inputs=[tensor], parameters=values)


def test_grpc_has_the_same_limits_and_errors_and_is_drained(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    port = free_port()
    options = ["--grpc-port", str(port)]
    running = start_server(stub_bundle, "drain_seconds=3", options=options).wait_until_ready()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(request(b"Milk", "Crème".encode(), top_k=2), timeout=20)
        outputs = {output.name: output for output in response.outputs}
        expected = StubScorer(LABELS).predict(["Milk", "Crème"]).predicted_labels
        departments = outputs["department"].contents.bytes_contents
        assert [department.decode() for department in departments] == expected
        assert list(outputs["ranked_probabilities"].shape) == [2, 2]
        # tritonclient sends raw bytes, and expects them.
        raw = request(b"Milk", "Crème".encode(), top_k=2)
        raw.raw_input_contents.append(encode(*raw.inputs[0].contents.bytes_contents))
        raw.inputs[0].ClearField("contents")
        response = stub.ModelInfer(raw, timeout=20)
        assert [list(output.shape) for output in response.outputs] == [[2], [2], [2, 2], [2, 2]]
        assert response.raw_output_contents[0] == encode(*departments)
        probabilities = np.frombuffer(response.raw_output_contents[3], dtype="<f4")
        ranked = outputs["ranked_probabilities"].contents.fp32_contents
        assert probabilities.tolist() == list(ranked)
        for invalid, path in (
            (request(b""), "inputs[0].data[0]"),
            (request(b"\xff"), "inputs[0].data[0]"),
            (request(b"Milk", shape=2), "inputs[0].shape"),
            (request(b"Milk", top_k=99), "parameters.top_k"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(invalid, timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details().startswith(f"{path}: ")
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="grocer"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        model = pb.ModelReadyRequest(name="grocer")
        assert stub.ModelReady(model, timeout=20).ready
        running.process.terminate()
        wait_for(lambda: not stub.ModelReady(model, timeout=20).ready)
        assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=20).ready
        assert len(stub.ModelInfer(request(b"Milk"), timeout=20).outputs) == 4
    assert running.exit_code() == 0


def test_message_with_too_many_parts_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "InferRequest", None)
    many = request(*[b""] * 21)
    values = {str(i): pb.InferParameter(int64_param=i) for i in range(17)}
    tensor = pb.ModelInferRequest.InferInputTensor(parameters=values)
    output = pb.ModelInferRequest.InferRequestedOutputTensor(parameters=values)
    for message in (
        many,
        pb.ModelInferRequest(inputs=[tensor]),
        pb.ModelInferRequest(outputs=[output]),
        pb.ModelInferRequest(inputs=[*many.inputs, *many.inputs]),
        pb.ModelInferRequest(parameters=values),
    ):
        with pytest.raises(RequestError) as caught:
            asyncio.run(Servicer(None, None, max_items=20).ModelInfer(message, None))
        assert caught.value.status == 400


def test_rejected_prediction_is_not_decoded() -> None:
    def admit() -> None:
        raise RequestError(429, "queue full", retry_after=1)

    async def decode(_: object) -> None:
        raise AssertionError

    async def reject(method: str) -> grpc.RpcMethodHandler:
        details = SimpleNamespace(method=f"/inference.GRPCInferenceService/{method}")
        return await _Admission(admit).intercept_service(decode, details)

    handler, context = asyncio.run(reject("ModelInfer")), AsyncMock()
    assert handler.request_deserializer is None
    asyncio.run(handler.unary_unary(b"", context))
    context.abort.assert_awaited_once_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")
    with pytest.raises(AssertionError):
        asyncio.run(reject("ModelReady"))
