"""Pydantic models of the API: they validate requests and define the OpenAPI document.

The models contain the limits and labels of a bundle. Responses of V2 infer, metadata and health
are KServe's own models.
"""

# Without postponed annotations: pydantic needs the local types of the functions.
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import SkipJsonSchema

from grocer.config.deployment import ServingConfig
from grocer.model.prompts.template import is_blank

INPUT = "product_name"
OUTPUTS = ("department", "probability", "ranked_departments", "ranked_probabilities")
AISLE_OUTPUTS = ("aisle", "aisle_probability")
"""Additional V2 outputs of a bundle with aisles."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ItemError(ValueError):
    """An invalid item of a list. Validating a list at once is faster than item by item."""

    def __init__(self, item: int, message: str) -> None:
        super().__init__(message)
        self.item = item


class Model(BaseModel):
    """Base class: strict types, no unknown fields, no NaN, no input in error messages."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class OpenModel(Model):
    """Base class of V2 parameters: servers define their own, and clients send those of others."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | int | float | bool | None]


class ErrorResponse(Model):
    error: str


class LivenessResponse(Model):
    status: Literal["alive"]


Probability = Annotated[float, Field(ge=0, le=1)]
# Valid, but not in the OpenAPI document: the binary extension, and fields that are ignored.
Hidden = SkipJsonSchema()


class Models:
    """The models of one bundle's API."""

    def __init__(
        self, config: ServingConfig, labels: Sequence[str], aisles: Sequence[str] = ()
    ) -> None:
        name = _name(config.max_name_characters)
        names = _list_of(name, config.max_items, _require_text)

        class Parameters(Model):
            top_k: _integer(len(labels)) = min(config.top_k, len(labels))
            min_probability: Probability = 0.0

        self.defaults, self.max_items = Parameters(), config.max_items
        self.names = TypeAdapter(names)
        """Validates the elements of a binary tensor; with `strict=False` it decodes UTF-8."""
        self.outputs = OUTPUTS + AISLE_OUTPUTS if aisles else OUTPUTS
        self.predict_request, self.explain_request = _v1_requests(config, name, Parameters)
        self.infer_request = _v2_request(config, names, self.outputs, Parameters)
        self.predict_response, self.explain_response = _v1_responses(labels, aisles)


def _name(most: int) -> Any:
    text = "Text without control characters. The pattern is stricter: every match is valid."
    pattern = {"pattern": r"^[ -~]*[!-~][ -~]*$"}
    limits = Field(min_length=1, max_length=most, description=text, json_schema_extra=pattern)
    return Annotated[str, limits]


def _v1_requests(config: ServingConfig, name: Any, base: Any) -> tuple[type[Model], type[Model]]:
    class NamedProduct(Model):
        product_name: name

    instance = Annotated[name | NamedProduct, Field(union_mode="left_to_right")]

    def names(instances: list[Any]) -> list[str]:
        return _require_text([i if type(i) is str else i.product_name for i in instances])

    def short_names(instances: list[Any]) -> list[str]:
        for i, text in enumerate(result := names(instances)):
            if len(text.split()) > config.explain_words:
                raise ItemError(i, f"at most {config.explain_words} words can be explained")
        return result

    class PredictRequest(Model):
        instances: _list_of(instance, config.max_items, names)
        parameters: base | None = None

    class ExplainRequest(PredictRequest):
        instances: _list_of(instance, min(config.explain_items, config.max_items), short_names)

    return PredictRequest, ExplainRequest


def _v2_request(config: ServingConfig, names: Any, known: Any, base: Any) -> type[Model]:
    class TensorParameters(OpenModel):
        binary_data_size: Annotated[int | None, Hidden] = None

    class InputTensor(Model):
        model_config = ConfigDict(json_schema_extra=_require_data)
        name: Literal[INPUT]
        datatype: Literal["BYTES"]
        shape: _list_of(_integer(config.max_items), 1)
        data: names | SkipJsonSchema[None] = None
        parameters: TensorParameters | None = None

    class OutputParameters(OpenModel):
        binary_data: bool | None = None

    class RequestedOutput(Model):
        name: Literal[known]
        parameters: Annotated[OutputParameters | None, Hidden] = None

    class InferParameters(base, OpenModel):
        binary_data_output: Annotated[bool, Hidden] = False

    class InferRequest(Model):
        id: Annotated[str, Field(max_length=256)] | None = None
        inputs: _list_of(InputTensor, 1)
        outputs: _list_of(RequestedOutput, len(known), _require_distinct) | None = Field(
            None, json_schema_extra={"uniqueItems": True}
        )
        parameters: InferParameters | None = None
        # KServe's client repeats what the path contains.
        model_name: Annotated[str | None, Hidden] = None
        model_version: Annotated[str | None, Hidden] = None

    return InferRequest


def _require_data(schema: dict[str, Any]) -> None:
    # Only a binary tensor has no data.
    schema["required"].append("data")
    del schema["properties"]["data"]["default"]


def _v1_responses(labels: Sequence[str], aisles: Sequence[str]) -> tuple[type[Model], type[Model]]:
    label = Literal[tuple(labels)]

    class Alternative(Model):
        department: label
        probability: Probability

    class Prediction(Model):
        department: label | None
        probability: Probability
        alternatives: list[Alternative]

    if aisles:

        class PredictionWithAisle(Prediction):
            aisle: Literal[tuple(aisles)] | None
            aisle_probability: Probability

    class PredictResponse(Model):
        predictions: list[PredictionWithAisle if aisles else Prediction]

    class WordEffect(Model):
        word: str
        effect: float

    class Explanation(Model):
        department: label
        probability: Probability
        words: list[WordEffect]

    class ExplainResponse(Model):
        explanations: list[Explanation]

    return PredictResponse, ExplainResponse


def _integer(most: int) -> Any:
    # JSON Schema counts 2.0 as an integer; pydantic in strict mode does not.
    convert = BeforeValidator(lambda v: int(v) if type(v) is float and v.is_integer() else v)
    return Annotated[int, Field(ge=1, le=most), convert]


def _list_of(item: Any, most: int, check: Callable[[list[Any]], Any] | None = None) -> Any:
    result = Annotated[list[item], Field(min_length=1, max_length=most, fail_fast=True)]
    return Annotated[result, AfterValidator(check)] if check else result


def _require_text(names: list[str]) -> list[str]:
    for i, name in enumerate(names):
        ascii_only = name.isascii()
        if not name.isprintable() if ascii_only else _CONTROL.search(name):
            raise ItemError(i, "control characters and line breaks are not allowed")
        if name.isspace() if ascii_only else is_blank(name):
            raise ItemError(i, "the name is blank")
    return names


def _require_distinct(outputs: list[Any]) -> list[Any]:
    for i, output in enumerate(outputs):
        if output.name in {earlier.name for earlier in outputs[:i]}:
            raise ItemError(i, f"{output.name} is requested twice")
    return outputs
