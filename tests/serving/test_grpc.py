"""gRPC: off unless asked for, and then with the same limits and refusals."""

from __future__ import annotations

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from grocer.release.bundle import Bundle
from tests.fixtures.artifacts import LABELS
from tests.fixtures.predictor import StubScorer
from tests.serving.conftest import READY, Start, free_port


def request(*names: bytes, shape: int | None = None, **parameters: int) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="product_name",
        datatype="BYTES",
        shape=[len(names) if shape is None else shape],
        contents=pb.InferTensorContents(bytes_contents=names),
    )
    chosen = {name: pb.InferParameter(int64_param=value) for name, value in parameters.items()}
    return pb.ModelInferRequest(model_name="grocer", inputs=[tensor], parameters=chosen)


def test_grpc_has_the_same_guards(start_any: Start, stub_bundle: Bundle) -> None:
    port = free_port()
    running = start_any(stub_bundle, more=["--grpc-port", str(port)]).until_ready()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request(b"Milk", "Crème".encode(), top_k=2), timeout=20)
        outputs = {output.name: output for output in answer.outputs}
        rows = StubScorer(LABELS).predict(["Milk", "Crème"]).probabilities
        found = outputs["department"].contents.bytes_contents
        assert [name.decode() for name in found] == [LABELS[i] for i in rows.argmax(axis=1)]
        assert list(outputs["ranked_probabilities"].shape) == [2, 2]
        for bad, code, told in (
            (request(b""), grpc.StatusCode.INVALID_ARGUMENT, "empty or blank"),
            (request(b"\xff"), grpc.StatusCode.INVALID_ARGUMENT, "not UTF-8"),
            (request(b"Milk", shape=2), grpc.StatusCode.INVALID_ARGUMENT, "the data has 1"),
            (request(b"Milk", top_k=99), grpc.StatusCode.INVALID_ARGUMENT, "top_k"),
            (request(b"Milk", other=1), grpc.StatusCode.INVALID_ARGUMENT, "parameters"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(bad, timeout=20)
            assert caught.value.code() is code
            assert told in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="grocer"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert running.get(READY).status_code == 200
    assert running.code(15) == 0
