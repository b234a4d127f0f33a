"""TRL's SFTTrainer on packed sequences: the batch is one sequence, the loss its answers' tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from grocer.console import Ticker
from grocer.errors import TrainingError
from grocer.packing import IGNORED, additive, pack, visible

_LOGGED = ("loss", "grad_norm", "learning_rate")


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


class PackedTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss runs the head over the answers' positions only.

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

    @property
    def tokens_seen(self) -> int:
        """Tokens of all training passes so far, the shared instruction counted once a pack."""
        return int(self._total_train_tokens)

    def _mask_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype


class Progress(TrainerCallback):  # type: ignore[misc]
    """Says how far training has come and keeps the logged losses."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.ticker: Ticker | None = None
        self._loss = math.nan

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.ticker is None:
            self.ticker = Ticker("train", state.max_steps, "steps")
        note = "" if math.isnan(self._loss) else f"loss {self._loss:.3f}"
        self.ticker.at(state.global_step, note)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        self._loss = float(logs["loss"])
        # The Trainer formats what it logs as text.
        kept = {key: float(logs[key]) for key in _LOGGED if key in logs}
        refuse_non_finite(state.global_step, kept)
        self.losses.append({"step": float(state.global_step), **kept})


def refuse_non_finite(step: int, logs: Mapping[str, float]) -> None:
    """Stop a run whose loss or gradient is no number.

    Raises:
        TrainingError: with the step, the learning rate and what to try.
    """
    for key in ("loss", "grad_norm"):
        if key in logs and not math.isfinite(logs[key]):
            raise TrainingError(
                f"step {step}: {key} is {logs[key]} at learning rate "
                f"{logs.get('learning_rate', math.nan):.2g}; try a lower train.learning_rate, "
                "train.precision=fp32, or a lower train.max_grad_norm"
            )
