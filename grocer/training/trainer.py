"""TRL's SFTTrainer, guarded; and on packed sequences, where the batch is one sequence."""

from __future__ import annotations

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
from grocer.model.device import Hardware
from grocer.model.packing import IGNORED, additive, pack, visible
from grocer.training.dataset import TrainingSet
from grocer.training.nonfinite import FiniteGuard


class PackingCollator:
    """Turns products into one packed sequence with labels on the answers' tokens only.

    Each example has `tail` (ids after the shared instruction) and `answer` (ids, EOS included).
    """

    def __init__(self, prefix: Sequence[int]) -> None:
        self.prefix = prefix

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        packed = pack(self.prefix, [[*e["tail"], *e["answer"]] for e in examples])
        labels = torch.full_like(packed.input_ids, IGNORED)
        for row, example in zip(packed.rows.tolist(), examples, strict=True):
            start = row + 1 - len(example["answer"])
            labels[0, start : row + 1] = packed.input_ids[0, start : row + 1]
        return {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "segments": packed.segments[None],
            "labels": labels,
        }


class GuardedTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with float32 adapter weights, which stops at a number that is none."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        keep_adapter_in_float32(self.model)
        self.finite = FiniteGuard(scaled=self.accelerator.scaler is not None)

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """Forward and backward of one batch; see `FiniteGuard.loss`."""
        loss: Tensor = super().training_step(*arguments, **named)
        self.finite.loss(loss.item(), self.state.global_step + 1, self._get_learning_rate())
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.finite.gradient(float(norm), self.state.global_step + 1, self._get_learning_rate())
        return norm

    @property
    def tokens_seen(self) -> int:
        """Tokens of this process's training passes so far; a pack's instruction counts once."""
        return int(self._total_train_tokens)


class PackedTrainer(GuardedTrainer):
    """Runs the head over the answers' positions only.

    The loss is the sum over answer tokens divided by their number in the whole effective batch,
    as TRL's own, so packed and plain training weigh tokens alike. The head is an ordinary
    matrix product: TRL's fused one needs Triton, which a T4 may not have.
    """

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["tail", "answer"]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean loss of the answers' tokens; the outputs, where wanted, hold only their logits."""
        targets = inputs["labels"][0, 1:]
        rows = torch.nonzero(targets != IGNORED).flatten()
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=additive(visible(inputs["segments"][0]), self._mask_dtype()),
            logits_to_keep=rows,
            use_cache=False,
        )
        total = cross_entropy(outputs.logits[0].float(), targets[rows], reduction="sum")
        count = len(rows) if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        self._total_train_tokens += inputs["input_ids"].numel() if self.model.training else 0
        return (loss, outputs) if return_outputs else loss

    def _mask_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype


def keep_adapter_in_float32(model: torch.nn.Module) -> None:
    """Undo TRL's cast of a quantised model's trainable weights to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def build(
    model: Any,
    tokenizer: Any,
    examples: TrainingSet,
    settings: SFTConfig,
    config: RunConfig,
    validation: TrainingSet | None = None,
) -> GuardedTrainer:
    """The trainer of a fresh adapter on `model`, packed or plain as the configuration says."""
    packing = config.train.packing
    if validation is None:
        settings.eval_strategy = "no"
    trainer = (PackedTrainer if packing else GuardedTrainer)(
        model=model,
        args=settings,
        train_dataset=examples.dataset,
        eval_dataset=validation.dataset if validation else None,
        processing_class=tokenizer,
        data_collator=PackingCollator(examples.prefix) if packing else None,
        peft_config=lora(config),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def lora(config: RunConfig) -> LoraConfig:
    """The adapter under PEFT's names."""
    targets = config.lora.target_modules
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def arguments(config: RunConfig, machine: Hardware, out: Path) -> SFTConfig:
    """The configuration under the Trainer's names; `out` gets its checkpoints."""
    settings = config.train
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        fp16=machine.precision == "fp16",
        bf16=machine.precision == "bf16",
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_eval_batch_size,
        eval_strategy="epoch",
        prediction_loss_only=True,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        activation_checkpointing=settings.activation_checkpointing,
        max_grad_norm=settings.max_grad_norm,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optim=settings.optim,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.checkpoints else "no",
        save_steps=settings.save_steps,
        save_total_limit=1,
        seed=settings.seed,
        max_length=settings.max_length,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=machine.device == "cuda",
        use_cpu=machine.device == "cpu",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
    )
