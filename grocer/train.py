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
from grocer.loss_page import loss_page
from grocer.prompts import Template
from grocer.step import peak_rss_mb
from grocer.tiny import TINY, tiny_base

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
    if settings.threads:
        torch.set_num_threads(settings.threads)
    labels = read_json(splits / "labels.json")
    template = Template(**read_json(splits / "template.json"))
    products = pd.read_parquet(splits / "train.parquet", columns=["product_name", "department"])
    device = models.choose_device(config.base.device)
    dtype, dtype_reason = models.choose_compute_dtype(config.base.compute_dtype, device)
    precision, precision_reason = models.choose_precision(settings.precision, device)
    console.say("train", f"on {device} · 4-bit weights computed in {dtype_reason}")
    console.say("train", f"mixed precision {precision_reason}")

    directory, reference = _base(products, template, labels, config)
    tokenizer = models.load_tokenizer(directory)
    encoder = Encoder(tokenizer, template, labels)
    dataset, lengths = _examples(products, encoder, settings.max_length)
    console.say("train", f"{len(products):,} products · {lengths['prefix_tokens']} shared tokens")

    from grocer.trainer import PackedTrainer, PackingCollator, Progress

    progress = Progress()
    trainer = PackedTrainer(
        model=models.load_nf4(directory, dtype, device),
        args=_arguments(config, device, precision, out / "checkpoints"),
        train_dataset=dataset,
        processing_class=tokenizer,
        data_collator=PackingCollator(encoder.prefix),
        peft_config=_lora(config),
        callbacks=[progress],
    )
    keep_adapter_in_float32(trainer.model)
    started = time.monotonic()
    result = trainer.train()
    seconds = time.monotonic() - started

    trainer.model.save_pretrained(out / "adapter")
    tokenizer.save_pretrained(out / "adapter")
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    if config.base.source == TINY:
        models.copy_base(directory, out / "base")
    write_json(out / "base.json", reference.to_json())
    for name in ("labels.json", "template.json"):
        shutil.copyfile(splits / name, out / name)
    report = {
        "base": reference.source,
        "device": device,
        "compute_dtype": dtype_reason,
        "precision": precision_reason,
        "examples": len(products),
        "epochs": result.metrics["epoch"],
        "steps": result.global_step,
        "logging_steps": settings.logging_steps,
        "seconds": seconds,
        "examples_per_second": len(products) * result.metrics["epoch"] / seconds,
        "tokens_per_second": trainer.tokens_seen / seconds,
        "cost": settings.price_per_gpu_hour * seconds / 3600 if device == "cuda" else None,
        **_memory(device),
        **_sizes(trainer.model),
        **lengths,
        "losses": progress.losses,
    }
    write_json(out / "training.json", report)
    (out / "loss.html").write_text(loss_page(report))
    return report


def _memory(device: str) -> dict[str, Any]:
    """Peak memory so far, and of what."""
    if device == "cuda":
        return {"peak_memory_mb": torch.cuda.max_memory_allocated() / 2**20, "memory_of": "GPU"}
    return {"peak_memory_mb": peak_rss_mb(), "memory_of": "process"}


def _sizes(model: Any) -> dict[str, int]:
    """Weights in all (a 4-bit one counts as one) and those that were trained."""
    trainable, total = model.get_nb_trainable_parameters()
    return {"parameters": total, "trainable_parameters": trainable}


def _base(
    products: pd.DataFrame, template: Template, labels: list[str], config: RunConfig
) -> tuple[Path, models.BaseReference]:
    """The base's directory and what identifies it."""
    if config.base.source != TINY:
        return models.find_base(config.base)
    names = products["product_name"].tolist()
    directory = tiny_base(names, template, labels, config.tiny)
    return directory, models.BaseReference(TINY, None, models.base_digest(directory))


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


def _arguments(config: RunConfig, device: str, precision: str, out: Path) -> SFTConfig:
    """The configuration under the Trainer's names."""
    from trl import SFTConfig

    settings = config.train
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


def keep_adapter_in_float32(model: torch.nn.Module) -> None:
    """Undo TRL's cast of a quantised model's trainable weights to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
