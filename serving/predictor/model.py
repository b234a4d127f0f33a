"""The KServe model: a bundle's adapter behind the batcher, for V1, V2 and gRPC alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kserve import InferRequest, InferResponse, Model
from kserve.errors import ModelNotReady, ServerNotLive
from kserve.model import InferenceVerb
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from grocer.config.deployment import ServingConfig
from grocer.errors import ModelError
from grocer.model.hierarchy import AISLES_FILE
from grocer.release.bundle import Bundle
from serving.predictor import protocol, tracing
from serving.predictor import responses as answers
from serving.predictor.batching import Batcher, Scorer
from serving.predictor.errors import Refusal
from serving.predictor.explain import explain
from serving.predictor.metrics import Metrics

NAME = "grocer"
Load = Callable[[Bundle], Scorer]


class Predictor(Model):
    """Ready once its thread has loaded the model and scored one name; false again at its end."""

    def __init__(
        self,
        bundle: Bundle,
        config: ServingConfig,
        metrics: Metrics,
        load: Load,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        super().__init__(NAME)
        self.bundle, self.config, self.metrics = bundle, config, metrics
        self.failed = False
        self.leaves = bundle.leaves
        self.limits = protocol.Limits(
            config.max_items,
            config.max_name_characters,
            len(bundle.labels),
            config.top_k,
            protocol.OUTPUTS + protocol.AISLE_OUTPUTS if self.leaves else protocol.OUTPUTS,
        )
        self._on_failure = on_failure
        self.batcher = Batcher(
            lambda: _fitting(load(bundle), bundle),
            metrics,
            on_ready=self._loaded,
            on_failure=self.fail,
            token_budget=config.token_budget,
            wait_seconds=config.batch_wait_ms / 1000,
            queue_items=config.queue_items,
            queue_seconds=config.queue_seconds,
        )

    def start(self) -> None:
        """Begin to load; called on the event loop."""
        self.batcher.start()

    def load(self) -> bool:
        """Whether it is ready. KServe calls this on the event loop: nothing may load here."""
        return self.ready

    def stop(self) -> None:
        """Take no more requests."""
        self._set_ready(False)
        self.batcher.close()

    def fail(self, error: BaseException) -> None:
        """Not live any more, for good."""
        self._set_ready(False)
        self.failed = True
        self.batcher.abandon()
        self._on_failure(error)

    def get_input_types(self) -> list[dict[str, Any]]:
        return answers.input_types()

    def get_output_types(self) -> list[dict[str, Any]]:
        return answers.output_types(self.limits.outputs)

    def validate(self, payload: Any) -> Any:
        """Nothing: what comes here was read by `serving.protocol`."""
        return payload

    async def preprocess(
        self, payload: protocol.Ask | InferRequest, headers: Mapping[str, str] | None = None
    ) -> protocol.Ask:
        if not self.ready:
            raise Refusal(503, "the model is not ready", retry_after=2)
        return payload if isinstance(payload, protocol.Ask) else self._from_grpc(payload)

    async def predict(
        self, payload: protocol.Ask, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        with tracing.span("score", {"grocer.items": len(payload.names)}):
            found = await self.batcher.probabilities(payload.names, self.config.deadline_seconds)
        self.metrics.answered(found.probabilities)
        if payload.outputs is None:
            return answers.v1(payload, found)
        return answers.v2(payload, found, NAME, self.bundle.digest)

    async def explain(
        self, payload: protocol.Ask, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return await explain(payload, self.bundle.labels, self.batcher, self.config)

    def _from_grpc(self, request: InferRequest) -> protocol.Ask:
        tensors = [
            (t.name, t.datatype, t.shape, t._raw_data if t._raw_data is not None else t.data)
            for t in request.inputs
        ]
        parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "int64_param")
            for name, value in (request.parameters or {}).items()
        }
        wanted = [output.name for output in request.request_outputs or []]
        binary = request.use_binary_outputs
        return protocol.from_tensors(
            tensors, parameters, wanted, request.id, self.limits, binary=binary
        )

    def _loaded(self) -> None:
        if not self.failed:
            self._set_ready(True)

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.metrics.ready(ready)


class ClosedRepository(ModelRepositoryExtension):
    """No client may load or unload the model."""

    async def load(self, model_name: str) -> None:
        raise Refusal(404, "models are not loaded over the network")

    async def unload(self, model_name: str) -> None:
        raise Refusal(404, "models are not unloaded over the network")


class StrictDataPlane(DataPlane):
    """KServe's data plane with our reading of bodies, and health that tells the truth."""

    def __init__(self, registry: Any, predictor: Predictor) -> None:
        super().__init__(registry)
        self._predictor = predictor

    async def live(self) -> dict[str, str]:  # type: ignore[override]
        if self._predictor.failed:
            raise ServerNotLive()
        return {"status": "alive"}

    async def ready(self) -> bool:
        return bool(self._predictor.ready)

    def metadata(self) -> dict[str, Any]:
        return {**super().metadata(), "name": NAME, "extensions": ["binary_tensor_data"]}

    def decode(
        self,
        body: bytes,
        headers: Mapping[str, str],
        protocol_version: str = "v1",
        model_name: str | None = None,
    ) -> tuple[protocol.Ask, dict[str, Any]]:
        limits = self._predictor.limits
        if protocol_version == "v1":
            return protocol.parse_v1(body, limits), {}
        length = headers.get("inference-header-content-length")
        return protocol.parse_v2(body, length, limits), {}

    async def explain(
        self, model_name: str, request: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """As KServe's, which answers with the request's headers, tokens in them included."""
        if not self._predictor.ready:
            raise ModelNotReady(model_name)
        answer, _ = await self._predictor(request, verb=InferenceVerb.EXPLAIN, headers=headers)
        return answer, {}


def _fitting(scorer: Scorer, bundle: Bundle) -> Scorer:
    if (tuple(scorer.labels), tuple(scorer.leaves)) != (bundle.labels, bundle.leaves):
        raise ModelError(
            f"{bundle.path}: labels.json or {AISLES_FILE} names others than bundle.json does"
        )
    return scorer
