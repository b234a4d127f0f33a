"""TRL's SFTTrainer with checks for NaN and Inf, and its variant for packed sequences."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from grocer.config.run import RunConfig
from grocer.errors import TrainingError
from grocer.model.attention import pack_layout, packed_forward, use_packed_attention
from grocer.model.device import Hardware
from grocer.model.packing import IGNORE_INDEX, pack
from grocer.progress import say
from grocer.training import sharding
from grocer.training.dataset import TrainingSet

MIN_STEPS, MIN_EPOCHS, MAX_EPOCHS = 60, 2, 8
"""With `train.num_train_epochs=auto`: the minimum number of optimizer steps, and the limits of the
number of epochs, which have precedence."""
MACHINE_SETTINGS = {"precision", "checkpoints", "force", "nodes", "processes_per_node"}
"""Settings of `train` for the machine. A run resumes with others that give the same precision and
number of processes."""
PACK_MULTIPLE = 8
"""The number of tokens of a pack is a multiple of this. On a CPU, oneDNN compiles kernels for each
number and keeps them; a GPU's units for float16 are fast only with a multiple of 8."""
# GradScaler starts at 2^16 and halves its scale: after 20 overflows in a row it is below 1.
_MAX_OVERFLOWS = 20


class FiniteGuard:
    """Stops training on a loss or gradient that is NaN or Inf, before it reaches a weight.

    With loss scaling (fp16), single gradient overflows are expected: GradScaler skips the step
    and lowers its scale. Only a long series of overflows stops the run.
    """

    def __init__(self, loss_scaling: bool) -> None:
        self._allowed = {"loss": 0, "gradient norm": _MAX_OVERFLOWS if loss_scaling else 0}
        self._in_a_row = dict.fromkeys(self._allowed, 0)

    def check(self, name: str, value: float, step: int, learning_rate: float) -> None:
        """Raise a TrainingError if the `loss` or `gradient norm` is NaN or Inf too often."""
        self._in_a_row[name] = 0 if math.isfinite(value) else self._in_a_row[name] + 1
        if self._in_a_row[name] > self._allowed[name]:
            raise TrainingError(
                f"step {step}: the {name} is {value} at learning rate {learning_rate:.2g}; try a "
                "lower train.learning_rate, base.compute_dtype=float32, or a lower "
                "train.max_grad_norm"
            )


class PackingCollator:
    """Packs products into one sequence, with the tokens to predict.

    Args:
        prefix: token ids that every prompt starts with.
        nodes: candidate tokens of each choice; empty for the loss of whole completions.
    """

    def __init__(self, prefix: Sequence[int], nodes: Sequence[Sequence[int]] = ()) -> None:
        self.prefix = prefix
        self.candidates = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(node) for node in nodes] or [torch.empty(0)],
            batch_first=True,
            padding_value=IGNORE_INDEX,
        )

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch of the columns of `TrainingSet.dataset`.

        Padding is one more product, without tokens to predict.

        `labels` are int64 [1, T]: the token to predict after each position. `candidates`, with
        the loss of labels, are int64 [choices, most candidates].
        """
        suffixes = [[*e["suffix"], *e["completion"]] for e in examples]
        tokens = len(self.prefix) + sum(len(suffix) for suffix in suffixes)
        padding = [0] * (-tokens % PACK_MULTIPLE)
        packed = pack(self.prefix, [*suffixes, *([padding] if padding else [])])
        labels = torch.full_like(packed.input_ids, IGNORE_INDEX)
        for last, example in zip(packed.last_tokens.tolist(), examples, strict=False):
            start = last - len(example["completion"])
            targets = example.get("targets", example["completion"])
            offsets = example.get("offsets", range(len(targets)))
            labels[0, [start + offset for offset in offsets]] = torch.tensor(targets)
        batch = {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "sizes": packed.sizes,
            "labels": labels,
            "shift_labels": labels,  # tells the Trainer that the labels are shifted
        }
        if "nodes" in examples[0]:
            nodes = [node for example in examples for node in example["nodes"]]
            batch["candidates"] = self.candidates[nodes]
        return batch


class GuardedTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with float32 adapter weights that stops on NaN and Inf."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        keep_adapter_in_float32(self.model)
        self.finite = FiniteGuard(loss_scaling=self.accelerator.scaler is not None)

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator, with FSDP on CPUs too."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            sharding.enable(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter; the Trainer would gather the whole base on the first process."""
        if self.is_fsdp_enabled:
            sharding.save_adapter(self.model, Path(output_dir or self.args.output_dir))
        else:
            super().save_model(output_dir, _internal_call)

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """Run forward and backward pass of one batch, and check its loss."""
        loss: Tensor = super().training_step(*arguments, **named)
        step = self.state.global_step + 1
        self.finite.check("loss", loss.item(), step, self._get_learning_rate())
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        step = self.state.global_step + 1
        self.finite.check("gradient norm", float(norm), step, self._get_learning_rate())
        return norm

    @property
    def tokens_seen(self) -> int:
        """Tokens of this process's training batches so far, with padding; a prefix counts once."""
        return int(self._total_train_tokens)


class PackedTrainer(GuardedTrainer):
    """Trains on packed sequences and computes logits at predicted tokens only.

    As in TRL, the loss is the sum over predicted tokens divided by their number in the effective
    batch, so packed and padded batches weigh tokens alike. With `candidates`, a token competes
    with the other candidates of its choice only: the loss is the negative log-probability of the
    label under constrained decoding. The head is a plain matrix product: TRL's fused one needs
    Triton, which a T4 may not support.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss; with `return_outputs` also the outputs, with logits of its rows."""
        labels = inputs["labels"][0]
        rows = torch.nonzero(labels != IGNORE_INDEX).flatten()
        prefix = inputs["input_ids"].shape[1] - int(inputs["sizes"].sum())
        layout = pack_layout(inputs["sizes"], prefix)
        outputs = packed_forward(model, inputs, layout, rows, use_cache=False)
        logits, targets = outputs.logits[0].float(), labels[rows]
        if (candidates := inputs.get("candidates")) is not None:
            missing = candidates == IGNORE_INDEX
            logits = logits.gather(1, candidates.masked_fill(missing, 0))
            logits = logits.masked_fill(missing, float("-inf"))
            targets = (candidates == targets[:, None]).int().argmax(dim=1)
        total = cross_entropy(logits, targets, reduction="sum")
        count = len(rows) if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        self._total_train_tokens += inputs["input_ids"].numel() if self.model.training else 0
        return (loss, outputs) if return_outputs else loss


def keep_adapter_in_float32(model: torch.nn.Module) -> None:
    """Undo TRL's cast of a quantized model's trainable weights to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def build_trainer(
    model: Any,
    tokenizer: Any,
    examples: TrainingSet,
    arguments: SFTConfig,
    config: RunConfig,
    validation: TrainingSet | None = None,
) -> GuardedTrainer:
    """Return the trainer of a new adapter on `model`, with packed or padded batches."""
    packing = config.train.packing
    if packing:
        use_packed_attention(model)
    if validation is None:
        arguments.eval_strategy = "no"
    trainer = (PackedTrainer if packing else GuardedTrainer)(
        model=model,
        args=arguments,
        train_dataset=examples.dataset,
        eval_dataset=validation.dataset if validation else None,
        processing_class=tokenizer,
        data_collator=PackingCollator(examples.prefix, examples.nodes) if packing else None,
        peft_config=lora_config(config),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def lora_config(config: RunConfig) -> LoraConfig:
    """Return PEFT's configuration of the adapter."""
    return LoraConfig(**config.lora.model_dump(mode="json"), task_type="CAUSAL_LM")


def resolve_epochs(config: RunConfig, products: int) -> RunConfig:
    """Return the configuration with a number of epochs for this number of training products."""
    settings = config.train
    if settings.num_train_epochs != "auto":
        return config
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    batch *= int(os.environ.get("WORLD_SIZE", "1"))
    epochs = math.ceil(MIN_STEPS / math.ceil(products / batch))
    epochs = min(max(epochs, MIN_EPOCHS), MAX_EPOCHS)
    say("train", f"train.num_train_epochs={epochs} for {products:,} products")
    train = settings.model_copy(update={"num_train_epochs": float(epochs)})
    return config.model_copy(update={"train": train})


def training_arguments(config: RunConfig, hardware: Hardware, out: Path) -> SFTConfig:
    """Return TRL's configuration of the training run; checkpoints are written to `out`."""
    settings = config.train
    own = MACHINE_SETTINGS | {"packing", "loss", "group_by_length"}
    return SFTConfig(
        **settings.model_dump(exclude=own),  # all others have the Trainer's names
        output_dir=str(out),
        fp16=hardware.precision == "fp16",
        bf16=hardware.precision == "bf16",
        eval_strategy="epoch",
        prediction_loss_only=True,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.checkpoints else "no",
        save_total_limit=2,  # the older one may still be copied
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=hardware.device == "cuda",
        use_cpu=hardware.device == "cpu",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
    )
