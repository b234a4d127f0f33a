"""Protects the trainer against the traps of its libraries, each of which is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from grocer.model import base as models
from grocer.model.device import select_hardware
from grocer.model.tokenization import Encoder
from grocer.training.dataset import encode_products
from grocer.training.trainer import (
    GuardedTrainer,
    PackingCollator,
    build_trainer,
    training_arguments,
)
from tests.fixtures.tiny_model import encoder
from tests.fixtures.training_runs import lesson, products


@pytest.fixture(scope="module")
def coder(base: Path) -> Encoder:
    return encoder(models.load_tokenizer(base))


def made(base: Path, coder: Encoder, out: Path, *settings: str) -> GuardedTrainer:
    config = lesson(base, *settings)
    examples = encode_products(products(), coder, config.train)
    model = models.load_nf4(base, torch.float32, "cpu")
    return build_trainer(
        model,
        coder.tokenizer,
        examples,
        training_arguments(config, select_hardware(config), out),
        config,
    )


def gradient_norm(trainer: GuardedTrainer) -> float:
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.zero_grad()
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())


def test_scoring_before_training_corrupts_no_gradient(
    base: Path, coder: Encoder, tmp_path: Path
) -> None:
    """On CPUs with AVX512_BF16 a forward in eval mode would repack the 4-bit weights."""
    import bitsandbytes

    fresh = gradient_norm(made(base, coder, tmp_path))
    trainer = made(base, coder, tmp_path)
    layers = [m for m in trainer.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    with torch.no_grad():
        trainer.model.eval()(input_ids=torch.tensor([[1, 2, 3]]))
    assert gradient_norm(trainer) == fresh


def test_adapter_weights_stay_float32(base: Path, coder: Encoder, tmp_path: Path) -> None:
    """TRL casts a quantised model's trainable weights to bfloat16; GradScaler needs float32."""
    trainer = made(base, coder, tmp_path)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert trained
    assert {p.dtype for p in trained} == {torch.float32}


def test_only_linear_layers_inside_are_four_bit_and_tuned(
    base: Path, coder: Encoder, tmp_path: Path
) -> None:
    trainer = made(base, coder, tmp_path)
    assert type(trainer.model.get_output_embeddings()) is torch.nn.Linear
    tuned = {n.split(".lora_A")[0].rpartition(".")[2] for n, p in trainable(trainer)}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} <= tuned
    assert "lm_head" not in tuned


def trainable(trainer: GuardedTrainer) -> list[tuple[str, Any]]:
    return [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]


def test_the_studys_parameters_reach_the_trainer(
    base: Path, coder: Encoder, tmp_path: Path
) -> None:
    settings = (
        "train.weight_decay=0.01",
        "train.optim=paged_adamw_32bit",
        "train.lr_scheduler_type=constant",
        "train.warmup_steps=0.1",
        "train.save_steps=25",
        "train.checkpoints=/somewhere",
        "train.seed=3",
    )
    args = made(base, coder, tmp_path, *settings).args
    assert args.weight_decay == 0.01
    assert args.optim == "paged_adamw_32bit"
    assert args.lr_scheduler_type == "constant"
    assert args.warmup_steps == 0.1
    assert args.save_steps == 25
    assert args.save_strategy == "steps"
    assert args.seed == 3
    assert not args.bf16
    assert not args.fp16
    assert not args.logging_nan_inf_filter


def test_packed_steps_are_those_of_trl_itself(base: Path, coder: Encoder, tmp_path: Path) -> None:
    """Against TRL's own SFTTrainer, which tokenises prompt and completion by itself."""
    packed = made(base, coder, tmp_path / "packed")
    torch.manual_seed(0)
    rows = products()
    texts = Dataset.from_dict(
        {
            "prompt": [coder.template.render(n, coder.labels) for n in rows["product_name"]],
            "completion": [coder.template.completion(d) for d in rows["department"]],
        }
    )
    config = lesson(base)
    ours = training_arguments(config, select_hardware(config), tmp_path / "plain")
    plain = SFTTrainer(
        model=models.load_nf4(base, torch.float32, "cpu"),
        args=SFTConfig(
            **{
                key: getattr(ours, key)
                for key in (
                    "max_steps",
                    "per_device_train_batch_size",
                    "learning_rate",
                    "lr_scheduler_type",
                    "warmup_steps",
                    "weight_decay",
                    "max_grad_norm",
                    "optim",
                    "seed",
                    "logging_steps",
                )
            },
            output_dir=str(tmp_path / "plain"),
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=texts,
        processing_class=coder.tokenizer,
        peft_config=LoraConfig(
            r=config.lora.r,
            lora_alpha=config.lora.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    from grocer.training.trainer import keep_adapter_in_float32

    keep_adapter_in_float32(plain.model)
    weights = packed.model.state_dict()
    plain.model.load_state_dict({n: v for n, v in weights.items() if "lora_" in n}, strict=False)
    packed.train()
    plain.train()

    def losses(trainer: Any) -> list[float]:
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert losses(packed) == pytest.approx(losses(plain), abs=1e-4)


def test_the_outputs_hold_the_answers_logits(base: Path, coder: Encoder, tmp_path: Path) -> None:
    trainer = made(base, coder, tmp_path)
    rows = [trainer.train_dataset[i] for i in range(3)]
    batch = PackingCollator(coder.prefix)(rows)
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.logits.shape[1] == sum(len(row["completion"]) for row in rows)
    assert torch.isfinite(loss)
