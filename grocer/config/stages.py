"""The sections of a run's configuration that decide which adapter comes out, and the verdict on it.

Secrets never appear here: a field that needs one names the environment variable that holds it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from grocer.config.base import Fraction, Positive, Section


class ColumnMapping(Section):
    """Which columns of a shop's own single-table catalogue hold what."""

    product_name: str = "product_name"
    """Column of the product's name."""
    department: str = "department"
    """Column of the department's name: the label; empty means not yet categorised (`missing`)."""
    aisle: str | None = None
    """Column of the aisle, if there is one."""
    product_id: str | None = None
    """Column of an integer id; rows are numbered from 1 when there is none."""
    purchases: str | None = None
    """Column of how often a product was bought; each counts as bought once when there is none."""


class DataConfig(Section):
    """What is read, and what is done about nulls."""

    columns: ColumnMapping | None = None
    """Set when the source is one table of a shop's own, not Instacart's files."""
    memory_limit_mb: Positive = 425
    """MiB that DuckDB may hold in memory while it joins; the rest is spilled beside the output."""
    threads: Positive = 2
    """Threads for DuckDB; more than there are cores gain nothing."""
    drop_rows_with_null: bool = True
    """Leave out order lines with a null (a user's first order), as the study did."""


class ValidationConfig(Section):
    """Limits of the expectations."""

    max_null_fraction: Fraction = 0.10
    """A larger share of joined order lines with a null stops the run."""
    max_orphan_fraction: Fraction = 0.001
    """A larger share of order lines whose product or order is unknown stops the run."""
    min_products: Positive = 100
    """Fewer labelled products than this stop the run."""
    min_departments: Annotated[int, Field(ge=2)] = 2
    """Fewer departments than this stop the run."""
    max_unlabelled_fraction: Fraction = 0.5
    """A larger share of products without a department stops the run."""
    max_split_aisles: Fraction = 0.0
    """A larger share of aisles whose products lie in several departments stops the run."""


class CatalogueConfig(Section):
    """Which products are learnt from, and what their label is."""

    label: Literal["department", "aisle"] = "department"
    """The column that is predicted."""
    levels: Literal[1, 2] = 1
    """2: the aisle within the department is predicted too; `label` stays the department then."""
    unlabelled: tuple[str, ...] = ("missing",)
    """Names that mean `not yet categorised`: no class, but a list of products to recover."""

    @model_validator(mode="after")
    def _department_comes_first(self) -> Self:
        if self.levels == 2 and self.label != "department":
            raise ValueError("catalogue.levels=2 has the department first; leave catalogue.label")
        return self


class SplitConfig(Section):
    """Shares of the products, by normalised name; the rest trains."""

    validation: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of products for calibration and early looks."""
    test: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of products that the verdict is measured on."""
    seed: int = 17
    """Salt of the hash that assigns a side."""


class PromptConfig(Section):
    """How a product is put to the model."""

    template: Literal["llama2-chat", "short"] = "llama2-chat"
    """`llama2-chat`: an instruction that lists the labels; `short`: `name =>`."""
    max_name_characters: Positive = 200
    """Longer names are cut here, counted and reported."""
    max_name_tokens: Positive = 128
    """Names of more tokens (of rare scripts, say) are cut here, counted and reported."""


class BaseConfig(Section):
    """The base model."""

    source: str = "NousResearch/Llama-2-7b-chat-hf"
    """A Hub id, a local path, an `s3://` URI, or `tiny`: a Llama made by the run itself."""
    revision: str | None = None
    """Commit, tag or branch of a Hub id."""
    token_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "HF_TOKEN"
    """Name of the environment variable that holds the Hub's token for a gated base."""
    compute_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Type that 4-bit weights are computed in; `auto`: by compute capability, float32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `cuda` refuses a machine without a GPU."""


class TinyConfig(Section):
    """The Llama that a run makes for itself where `base.source` is `tiny`."""

    vocabulary: Positive = 2048
    """Entries of its BPE tokenizer."""
    hidden: Positive = 128
    """Width of its states; a multiple of `heads`."""
    layers: Positive = 2
    """Decoder layers."""
    heads: Positive = 4
    """Attention heads."""
    steps: Positive = 1800
    """Steps of pretraining, 16 products each."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    """Peak rate of pretraining."""
    seed: int = 7
    """Seed of its weights and its data order."""


class LoraSettings(Section):
    """The adapter."""

    r: Positive = 16
    """Rank of the adapter's matrices: what it can learn, and its memory, grow with it."""
    lora_alpha: Positive = 32
    """Scale: updates are multiplied by lora_alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout before the adapter; above 0, items of a pack share the prefix's mask."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: all linear ones, or those of these names, as `["q_proj"]`."""


class TrainConfig(Section):
    """Every training parameter of the study, under the Trainer's present name."""

    num_train_epochs: Annotated[float, Field(gt=0.0)] = 1.0
    """Passes over the training products."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Stop after this many optimizer steps; -1: by epochs."""
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Mixed precision: `auto` decides by compute capability and logs why."""
    per_device_train_batch_size: Positive = 32
    """Products a step and device; packed into one sequence when `packing` is on."""
    per_device_eval_batch_size: Positive = 32
    """Products a forward pass while validating."""
    eval_strategy: Literal["no", "epoch"] = "epoch"
    """When the loss of the validation products is measured and logged."""
    gradient_accumulation_steps: Positive = 1
    """Batches that are summed before an optimizer step."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass (the study's gradient checkpointing)."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 0.3
    """Gradients are clipped to this norm."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.001
    """Decay of all weights but biases and norms."""
    optim: Literal[
        "paged_adamw_32bit", "paged_adamw_8bit", "adamw_torch", "adamw_torch_fused", "adamw_8bit"
    ] = "paged_adamw_32bit"
    """Optimizer; paged ones move their state to the host while the GPU is full, 8-bit ones keep it
    in a quarter of the room."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over time."""
    warmup_steps: Annotated[float, Field(ge=0.0)] = 0.03
    """Warm-up: a share of all steps when below 1 (the study's warm-up ratio), else steps."""
    group_by_length: bool = False
    """Batch products of like length, which saves padding; only where `packing` is off."""
    packing: bool = True
    """One instruction prefix and many products a sequence; off: TRL's own padded batches."""
    max_length: Positive = 1024
    """Longest prompt and completion of one product, in tokens; a run that needs more is refused."""
    save_steps: Positive = 25
    """Optimizer steps between checkpoints."""
    logging_steps: Positive = 25
    """Optimizer steps between logged losses."""
    checkpoints: str | None = None
    """Directory or `s3://`, `gs://` URI that outlives the pod; null: a retry begins anew."""
    tensorboard: str | None = None
    """Where TensorBoard's event files go; null: `tensorboard/` in the step's output."""
    force: bool = False
    """Train even where the estimate says that memory won't suffice."""
    price_per_gpu_hour: Annotated[float, Field(ge=0.0)] = 0.35
    """What an hour of the GPU costs, in the currency you think in; only reported."""
    seed: int = 42
    """Seed of the adapter's weights and the data order."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for torch; 0: all."""

    @model_validator(mode="after")
    def _length_matters_where_batches_are_padded(self) -> Self:
        if self.group_by_length and self.packing:
            raise ValueError("train.group_by_length has no use with train.packing; turn one off")
        return self


class EvaluationConfig(Section):
    """How the adapter is measured."""

    train_sample: Positive = 2000
    """Training products, at most, that are scored for the train-test gap."""
    base_model_sample: Positive = 2000
    """Test products, at most, that the untuned base is scored on."""
    token_budget: Positive = 1024
    """Tokens of names in one forward pass; bounds its memory."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Level of every interval."""
    bootstrap: Positive = 1000
    """Resamples behind the interval of purchase-weighted accuracy."""
    seed: int = 23
    """Seed of samples and resamples."""


class GatePolicy(Section):
    """What must hold before an adapter is served. Anything not measured is a no."""

    min_accuracy: Fraction = 0.85
    """Floor of the lower confidence bound of test accuracy."""
    max_train_test_gap: Fraction = 0.10
    """Ceiling of train accuracy minus test accuracy."""
    min_test_products: Positive = 200
    """Fewer test products than this decide nothing."""
    baselines: tuple[Literal["majority", "linear", "base_model"], ...] = (
        "majority",
        "linear",
        "base_model",
    )
    """Baselines that must be beaten: significantly, but for `linear_margin`."""
    linear_margin: Fraction = 0.0
    """How far below the linear model's accuracy the adapter may lie; 0: as with the others."""
    significance: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Level of McNemar's exact test."""
    min_department_recall: Fraction = 0.3
    """Floor of recall for each department with at least `min_department_support` test products."""
    min_department_support: Positive = 20
    """Departments with fewer test products are reported, not judged, on recall."""
    max_ece: Fraction = 0.10
    """Ceiling of the expected calibration error."""
