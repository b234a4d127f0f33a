"""The trainer: exact gradients, float32 adapters, equality with TRL, and NaN/Inf checks."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from grocer.config.recipes import recipe
from grocer.config.stages import TrainConfig
from grocer.errors import TrainingError
from grocer.inference.scorer import Scorer
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.device import select_hardware
from grocer.model.hierarchy import ONE_LEVEL, Aisles
from grocer.model.prompts.tokenization import Encoder
from grocer.training.dataset import encode_products
from grocer.training.trainer import (
    FiniteGuard,
    GuardedTrainer,
    PackingCollator,
    build_trainer,
    keep_adapter_in_float32,
    lora_config,
    resolve_epochs,
    training_arguments,
)
from tests.fixtures.tiny_model import AISLES, encoder
from tests.fixtures.training_runs import products, short_run


@pytest.mark.parametrize(
    ("products", "epochs"),
    [(1, 8), (32, 8), (33, 8), (480, 4), (481, 4), (928, 3), (929, 2), (100_000, 2)],
)
def test_small_catalogues_are_seen_more_often(products: int, epochs: int) -> None:
    config = recipe("smollm2")
    assert resolve_epochs(config, products).train.num_train_epochs == epochs
    accumulated = config.with_settings(["train.gradient_accumulation_steps=2"])
    assert resolve_epochs(accumulated, 2 * products).train.num_train_epochs == epochs
    chosen = config.with_settings(["train.num_train_epochs=3"])
    assert resolve_epochs(chosen, products) == chosen


MakeTrainer = Callable[..., GuardedTrainer]


@pytest.fixture
def make_trainer(base: Path, coder: Encoder, tmp_path: Path) -> MakeTrainer:
    """Return a function that builds a trainer with settings."""

    def make(*settings: str) -> GuardedTrainer:
        config = short_run(base, *settings)
        examples = encode_products(products(), coder, config.train)
        model = load_nf4(base, torch.float32, "cpu", dequantize=False)
        arguments = training_arguments(config, select_hardware(config), tmp_path)
        return build_trainer(model, coder.tokenizer, examples, arguments, config)

    return make


def trainable(trainer: GuardedTrainer) -> list[tuple[str, Any]]:
    return [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]


def gradient_norm(trainer: GuardedTrainer) -> float:
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.zero_grad()
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())


def test_evaluation_before_training_keeps_gradients_exact(make_trainer: MakeTrainer) -> None:
    """On CPUs with AVX512_BF16 a forward pass in eval mode would repack the 4-bit weights."""
    expected, trainer = gradient_norm(make_trainer()), make_trainer()
    layers = [m for m in trainer.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    with torch.no_grad():
        trainer.model.eval()(input_ids=torch.tensor([[1, 2, 3]]))
    assert gradient_norm(trainer) == expected


def test_adapter_is_float32_on_all_linear_layers_but_the_head(make_trainer: MakeTrainer) -> None:
    """TRL casts a quantized model's trainable weights to bfloat16; GradScaler needs float32."""
    trainer = make_trainer()
    assert {p.dtype for _, p in trainable(trainer)} == {torch.float32}
    assert type(trainer.model.get_output_embeddings()) is torch.nn.Linear
    tuned = {n.split(".lora_A")[0].rpartition(".")[2] for n, _ in trainable(trainer)}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} <= tuned
    assert "lm_head" not in tuned


def test_settings_reach_the_trainer(make_trainer: MakeTrainer) -> None:
    settings = {
        "weight_decay": 0.01,
        "optim": "paged_adamw_32bit",
        "lr_scheduler_type": "constant",
        "warmup_steps": 0.1,
        "save_steps": 25,
        "seed": 3,
    }
    values = [f"train.{name}={value}" for name, value in settings.items()]
    args = make_trainer("train.checkpoints=/somewhere", *values).args
    assert {name: getattr(args, name) for name in settings} == settings
    assert args.save_strategy == "steps"
    assert not any((args.bf16, args.fp16, args.logging_nan_inf_filter))


def test_packed_training_equals_trl(
    make_trainer: MakeTrainer, base: Path, coder: Encoder, tmp_path: Path
) -> None:
    """Compare the losses with TRL's own SFTTrainer, which tokenizes prompt and completion."""
    packed = make_trainer()
    torch.manual_seed(0)
    rows = products()
    texts = Dataset.from_dict(
        {
            "prompt": [coder.template.render(n, coder.labels) for n in rows["product_name"]],
            "completion": [coder.template.completion(d) for d in rows["department"]],
        }
    )
    same = (
        *("max_steps", "per_device_train_batch_size", "learning_rate", "lr_scheduler_type"),
        *("warmup_steps", "weight_decay", "max_grad_norm", "optim", "seed", "logging_steps"),
    )
    plain = SFTTrainer(
        model=load_nf4(base, torch.float32, "cpu", dequantize=False),
        args=SFTConfig(
            **{name: getattr(packed.args, name) for name in same},
            output_dir=str(tmp_path / "plain"),
            bf16=False,
            activation_checkpointing=False,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=texts,
        processing_class=coder.tokenizer,
        peft_config=lora_config(short_run(base)),
    )
    keep_adapter_in_float32(plain.model)
    weights = packed.model.state_dict()
    plain.model.load_state_dict({n: v for n, v in weights.items() if "lora_" in n}, strict=False)
    packed.train()
    plain.train()

    def losses(trainer: Any) -> list[float]:
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert losses(packed) == pytest.approx(losses(plain), abs=1e-4)


def test_outputs_have_logits_of_completion_tokens_only(
    make_trainer: MakeTrainer, coder: Encoder
) -> None:
    trainer = make_trainer()
    rows = [trainer.train_dataset[i] for i in range(3)]
    batch = PackingCollator(coder.prefix)(rows)
    assert batch["sizes"][:3].tolist() == [len(r["suffix"]) + len(r["completion"]) for r in rows]
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.logits.shape[1] == sum(len(row["completion"]) for row in rows)
    assert torch.isfinite(loss)


def test_packs_are_padded_to_few_lengths() -> None:
    collate, rows = PackingCollator((5, 6, 7)), [{"suffix": [8], "completion": [9, 10]}] * 9
    lengths = [collate(rows[:count])["input_ids"].shape[1] for count in range(1, 10)]
    assert lengths == [8, 16, 16, 16, 24, 24, 24, 32, 32]


@pytest.mark.parametrize("aisles", [ONE_LEVEL, AISLES])
def test_label_loss_is_the_log_loss_of_constrained_decoding(
    base: Path, tmp_path: Path, aisles: Aisles
) -> None:
    coder = encoder(load_tokenizer(base), aisles=aisles)
    rows = products(8).assign(aisle=["", "milk", "fresh pasta", "fresh fruits"] * 2)
    config = short_run(base, "train.loss=label")
    examples = encode_products(rows, coder, config.train)
    arguments = training_arguments(config, select_hardware(config), tmp_path)
    model = load_nf4(base, torch.float32, "cpu")
    trainer = build_trainer(model, coder.tokenizer, examples, arguments, config)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    loss = trainer.compute_loss(trainer.model, batch).item()

    scorer = Scorer(trainer.model, coder)
    encoded = scorer.encode(rows["product_name"].tolist())
    truth = [scorer.labels.index(department) for department in rows["department"]]
    log_losses = -scorer.log_probabilities(encoded)[range(8), truth]
    choices = sum(map(len, examples.dataset["targets"]))
    if aisles:
        leaves = scorer.leaf_log_probabilities(encoded, np.array(truth))
        pairs = zip(rows["department"], rows["aisle"], strict=True)
        known = [(i, scorer.leaves.index(p)) for i, p in enumerate(pairs) if p in scorer.leaves]
        assert known
        log_losses = log_losses.sum() - sum(leaves[i, leaf] for i, leaf in known)
    assert loss * choices == pytest.approx(log_losses.sum(), rel=1e-4)


def test_label_loss_needs_no_token_after_the_last_choice(base: Path, coder: Encoder) -> None:
    whole = encode_products(products(), coder, TrainConfig())
    choices = encode_products(products(), coder, TrainConfig(loss="label"))
    assert choices.sizes.sum() < whole.sizes.sum()
    assert choices.dataset["suffix"] == whole.dataset["suffix"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "gradient norm"])
def test_guard_stops_on_nan_and_inf(value: float, name: str) -> None:
    problem = f"step 12: the {name} is {value} .*0.0002; .*learning_rate, base.compute_dtype=flo"
    with pytest.raises(TrainingError, match=problem):
        FiniteGuard(loss_scaling=False).check(name, value, 12, 2e-4)


def test_guard_allows_20_gradient_overflows_with_loss_scaling() -> None:
    guard = FiniteGuard(loss_scaling=True)
    for step in range(20):
        guard.check("gradient norm", math.inf, step, 1e-4)
    guard.check("gradient norm", 1.0, 20, 1e-4)
    for step in range(20):
        guard.check("gradient norm", math.inf, step, 1e-4)
    with pytest.raises(TrainingError, match="step 41: the gradient norm is inf"):
        guard.check("gradient norm", math.inf, 41, 1e-4)
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        FiniteGuard(loss_scaling=True).check("loss", math.nan, 1, 1e-4)
