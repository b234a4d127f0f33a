"""The KServe model: scores the products of a request with the classifier of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from kserve import InferRequest, InferResponse, Model

from grocer.config.deployment import ServingConfig
from grocer.errors import ModelError
from grocer.inference.scores import Scores
from grocer.model.hierarchy import AISLES_FILE
from grocer.release.bundle import LoadedBundle
from serving.predictor import tracing
from serving.predictor.batching.batcher import Batcher
from serving.predictor.errors import RequestError
from serving.predictor.metrics import Metrics
from serving.predictor.protocol import responses
from serving.predictor.protocol.models import INPUT, Models
from serving.predictor.protocol.requests import PredictionRequest, parse_grpc

if TYPE_CHECKING:
    from grocer.inference.classifier import Classifier

NAME = "grocer"
Load = Callable[[LoadedBundle], "Classifier"]


class Predictor(Model):
    """The model of a bundle, ready once the model thread has loaded it and scored one name.

    Args:
        on_failure: called on the event loop if loading or the device failed.

    Attributes:
        draining: set at shutdown: requests are served, but the server is not ready and closes
            connections.
    """

    def __init__(
        self,
        bundle: LoadedBundle,
        config: ServingConfig,
        metrics: Metrics,
        load: Load,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        super().__init__(NAME)
        self.bundle, self.metrics = bundle, metrics
        self.failed = self.draining = False
        aisles = dict.fromkeys(aisle for _, aisle in bundle.leaves)
        self.models = Models(config, bundle.labels, tuple(aisles))
        self._deadline, self._on_failure = config.deadline_seconds, on_failure
        self.batcher = Batcher(
            partial(self._load_classifier, load),
            config,
            metrics,
            on_ready=lambda: self._set_ready(not self.failed),
            on_failure=self.fail,
        )

    def load(self) -> bool:
        """Return whether the model is ready; KServe calls it on the event loop: never block."""
        return self.ready

    def stop(self) -> None:
        """Reject waiting and new requests."""
        self._set_ready(False)
        self.batcher.close()

    def fail(self, error: BaseException) -> None:
        """Report the model as not live and not ready; this is final."""
        self._set_ready(False)
        self.failed = True
        self.batcher.abandon()
        self._on_failure(error)

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return responses.output_types(self.models.outputs)

    def validate(self, payload: Any) -> Any:
        """Return the payload: it is already validated."""
        return payload

    async def preprocess(
        self, payload: PredictionRequest | InferRequest, headers: Mapping[str, str] | None = None
    ) -> PredictionRequest:
        self._require_ready()
        # HTTP bodies are parsed by the data plane; see application.py.
        if isinstance(payload, PredictionRequest):
            return payload
        return parse_grpc(payload, self.models)

    async def predict(
        self, payload: PredictionRequest, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        with tracing.span("score", {"grocer.items": len(payload.names)}):
            scores = await self._score(payload.names)
        self.metrics.observe_predictions(payload.names, scores)
        if payload.outputs is None:
            return responses.render_v1(payload, scores)
        return responses.render_v2(payload, scores, NAME, self.bundle.digest)

    async def explain(
        self, payload: PredictionRequest, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        scores = await self._score(responses.variants(payload.names))
        return responses.render_explanations(payload.names, scores)

    async def _score(self, names: Sequence[str]) -> Scores:
        return await self.batcher.score(names, self._deadline)

    def require_capacity(self) -> None:
        """Raise a RequestError if a request with one item would be rejected."""
        self._require_ready()
        self.batcher.queue.check_capacity(0)

    def _require_ready(self) -> None:
        if not self.ready:
            raise RequestError(503, "the model is not ready", retry_after=2)

    def _load_classifier(self, load: Load) -> Classifier:
        classifier, bundle = load(self.bundle), self.bundle
        if (classifier.labels, classifier.leaves) != (bundle.labels, bundle.leaves):
            raise ModelError(
                f"{bundle.path}: labels.json or {AISLES_FILE} does not match bundle.json"
            )
        if classifier.linear is not None:
            self.metrics.measure_names(classifier.linear.features)
        return classifier

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.metrics.observe_ready(ready)
