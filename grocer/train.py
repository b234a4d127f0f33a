"""Fine-tune an adapter on an NF4 base: QLoRA through TRL's SFTTrainer and PEFT."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from grocer import console, models
from grocer.config import RunConfig
from grocer.encoding import Encoder
from grocer.errors import ConfigError
from grocer.files import read_json, write_json
from grocer.prompts import Template
from grocer.tiny import tiny_base

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import SFTConfig


def train(splits: Path, config: RunConfig, out: Path) -> dict[str, Any]:
    """Train on `train.parquet` of `splits`; write adapter, base reference, metrics, loss page.

    Args:
        splits: what the prompts step wrote.
        out: an empty directory; gets `adapter/`, `base.json` (and `base/` where the run made
            its base), `labels.json`, `template.json`, `training.json`, `loss.html`.

    Returns:
        What `training.json` holds.

    Raises:
        ModelError: the base can't be found, loaded or used here.
        TrainingError: a loss or gradient that is no number.
    """
    settings = config.train
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    labels = read_json(splits / "labels.json")
    template = Template(**read_json(splits / "template.json"))
    products = pd.read_parquet(splits / "train.parquet", columns=["product_name", "department"])

    directory, reference = _base(products, template, labels, config)
    device = models.choose_device(config.base.device)
    dtype, reason = models.choose_compute_dtype(config.base.compute_dtype, device)
    console.say("train", f"4-bit weights are computed in {reason}")
    tokenizer = models.load_tokenizer(directory)
    encoder = Encoder(tokenizer, template, labels)
    dataset, lengths = _examples(products, encoder, settings.max_length)

    from grocer.trainer import PackedTrainer, PackingCollator, Progress

    base = models.load_nf4(directory, dtype, device)
    progress = Progress()
    trainer = PackedTrainer(
        model=base,
        args=_arguments(config, device, out / "checkpoints"),
        train_dataset=dataset,
        processing_class=tokenizer,
        data_collator=PackingCollator(encoder.prefix),
        peft_config=_lora(config),
        callbacks=[progress],
    )
    _keep_adapter_in_float32(trainer.model)
    started = time.monotonic()
    result = trainer.train()
    seconds = time.monotonic() - started

    trainer.model.save_pretrained(out / "adapter")
    tokenizer.save_pretrained(out / "adapter")
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    if config.base.source == "tiny":
        models.copy_base(directory, out / "base")
    write_json(out / "base.json", reference.to_json())
    for name in ("labels.json", "template.json"):
        shutil.copyfile(splits / name, out / name)
    seen = len(products) * result.metrics["epoch"]
    report = {
        "examples": len(products),
        "epochs": result.metrics["epoch"],
        "steps": result.global_step,
        "seconds": seconds,
        "examples_per_second": seen / seconds,
        "losses": progress.losses,
        **lengths,
    }
    write_json(out / "training.json", report)
    return report


def _base(
    products: pd.DataFrame, template: Template, labels: list[str], config: RunConfig
) -> tuple[Path, models.BaseReference]:
    """The base's directory and what identifies it."""
    if config.base.source != "tiny":
        return models.find_base(config.base)
    names = products["product_name"].tolist()
    directory = tiny_base(names, template, labels, config.tiny)
    return directory, models.BaseReference("tiny", None, models.base_digest(directory))


def _examples(
    products: pd.DataFrame, encoder: Encoder, max_length: int
) -> tuple[Dataset, dict[str, int]]:
    """Token ids of each product's tail and answer, and how long they are."""
    from datasets import Dataset

    names = products["product_name"].tolist()
    answers = dict(zip(encoder.labels, encoder.answers, strict=True))
    tails = encoder.tails(names)
    spelled = [list(answers[department]) for department in products["department"]]
    longest = len(encoder.prefix) + max(
        len(tail) + len(answer) for tail, answer in zip(tails, spelled, strict=True)
    )
    if longest > max_length:
        raise ConfigError(
            f"the longest prompt and answer have {longest} tokens, train.max_length is "
            f"{max_length}; raise it, or lower prompt.max_name_tokens"
        )
    lengths = {
        "prefix_tokens": len(encoder.prefix),
        "longest_tokens": longest,
        "names_cut": encoder.cut(names),
    }
    return Dataset.from_dict({"tail": tails, "answer": spelled}), lengths


def _lora(config: RunConfig) -> Any:
    from peft import LoraConfig

    targets = config.lora.target_modules
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def _arguments(config: RunConfig, device: str, out: Path) -> SFTConfig:
    """The configuration under the Trainer's names."""
    from trl import SFTConfig

    settings = config.train
    precision, reason = models.choose_precision(settings.precision, device)
    console.say("train", f"mixed precision {reason}")
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        fp16=precision == "fp16",
        bf16=precision == "bf16",
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        activation_checkpointing=settings.activation_checkpointing,
        max_grad_norm=settings.max_grad_norm,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optim=settings.optim,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        logging_steps=settings.logging_steps,
        save_strategy="no",
        seed=settings.seed,
        max_length=settings.max_length,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=device == "cuda",
        use_cpu=device == "cpu",
        disable_tqdm=True,
        report_to="none",
    )


def _keep_adapter_in_float32(model: torch.nn.Module) -> None:
    """Undo TRL's cast of a quantised model's trainable weights to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
