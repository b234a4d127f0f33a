"""Fine-tune an adapter on an NF4 base: QLoRA through TRL's SFTTrainer and PEFT."""

from __future__ import annotations

import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from trl import SFTConfig

from grocer.artifacts.adapter import Adapter, TrainingLoss, ValidationLoss
from grocer.config.run import RunConfig
from grocer.errors import ModelError, TrainingError
from grocer.io.atomic import file_digest, read_json, write_json
from grocer.model import base as models
from grocer.model.device import Hardware, cpu_threads, select_hardware
from grocer.model.hierarchy import AISLES_FILE, Aisles, read_aisles
from grocer.model.prompt_template import Template
from grocer.model.tiny_llama import TINY, tiny_base
from grocer.model.tokenization import Encoder
from grocer.progress import say
from grocer.reports.training import loss_page
from grocer.training.callbacks import Preemption, Progress, peak_memory, watchers
from grocer.training.checkpoints import Checkpoints
from grocer.training.dataset import TrainingSet, encode_products
from grocer.training.memory_estimate import (
    estimate,
    explain_out_of_memory,
    read_shape,
    require_memory,
)
from grocer.training.trainer import GuardedTrainer, build_trainer, training_arguments

_LOGGED = ("step", "loss", "grad_norm", "learning_rate")
_TOLD = ("labels.json", AISLES_FILE, "template.json")
_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def train(splits: Path, config: RunConfig, out: Path) -> Adapter:
    """Train on the products in `splits`; write adapter, base reference, metrics and loss page.

    Under torchrun each process calls this with an `out` of its own; all write the same.

    Args:
        splits: what the build_dataset step wrote; `train.parquet` is learnt from, the loss of
            `validation.parquet` is watched.
        out: an empty directory; gets `adapter/`, `base.json` (and `base/` where the run made
            its base), `labels.json`, `aisles.json` if there is one, `template.json`,
            `training.json`, `loss.html`, and `tensorboard/`.

    Returns:
        What `training.json` holds.

    Raises:
        ModelError: the base can't be found, loaded or used here.
        ConfigError: a product that is longer than `train.max_length`.
        TrainingError: too little memory, a loss or gradient that is no number, or a SIGTERM
            (the checkpoint is written; the same run again resumes from it).
        OutputError: `train.checkpoints` can't be reached.
    """
    # For so small a model a second thread gains little, and on busy cores it doubles the time.
    torch.set_num_threads(1 if config.base.source == TINY else cpu_threads())
    machine = _machine(config)
    settings = training_arguments(config, machine, out / "checkpoints")
    labels, aisles = read_json(splits / "labels.json"), read_aisles(splits)
    products, validation = (_products(splits, side, aisles) for side in ("train", "validation"))
    template = Template(**read_json(splits / "template.json"))
    # One process of a machine fetches or makes the base, the others then find it.
    with settings.main_process_first(local=True):
        directory, reference = _base(products, template, labels, aisles, config)
    tokenizer = models.load_tokenizer(directory)
    encoder = Encoder(tokenizer, template, labels, aisles)
    examples = encode_products(products, encoder, config.train)
    watched = encode_products(validation, encoder, config.train)
    cut = f"{examples.names_truncated:,} names cut at {template.max_name_tokens} tokens"
    facts = [f"{len(products):,} products", f"{len(examples.prefix)} shared tokens", cut]
    say("train", " · ".join(facts if examples.names_truncated else facts[:2]))
    _require_fit(directory, tokenizer, examples, config, machine)
    checkpoints = _checkpoints(splits, reference, settings, config)

    with explain_out_of_memory():
        model = models.load_nf4(directory, machine.dtype, str(settings.device))
        trainer = build_trainer(model, tokenizer, examples, settings, config, watched)
        took = _run(trainer, checkpoints, config, out)

    _keep(trainer, tokenizer, directory, config, out)
    write_json(out / "base.json", reference.to_json())
    for told in _told(splits):
        shutil.copyfile(told, out / told.name)
    report = Adapter(
        base=reference.source,
        **_facts(machine, examples, config),
        examples=len(products),
        **took,
    )
    report.write(out)
    (out / "loss.html").write_text(loss_page(report), encoding="utf-8")
    return report


def _keep(
    trainer: GuardedTrainer, tokenizer: Any, directory: Path, config: RunConfig, out: Path
) -> None:
    """Save the adapter, and a base that can't be had elsewhere, in place of the checkpoints."""
    trainer.model.save_pretrained(out / "adapter")
    tokenizer.save_pretrained(out / "adapter")
    if config.base.source == TINY:
        models.copy_base(directory, out / "base")
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


def _base(
    products: pd.DataFrame,
    template: Template,
    labels: list[str],
    aisles: Aisles,
    config: RunConfig,
) -> tuple[Path, models.BaseReference]:
    """The base's directory and what identifies it."""
    if config.base.source != TINY:
        return models.find_base(config.base)
    names = products["product_name"].tolist()
    directory = tiny_base(names, template, labels, config.tiny, aisles)
    return directory, models.BaseReference(TINY, None, models.base_digest(directory))


def _machine(config: RunConfig) -> Hardware:
    """What this machine trains with, said aloud."""
    machine = select_hardware(config)
    say("train", f"on {machine.device} · 4-bit weights computed in {machine.dtype_reason}")
    say("train", f"mixed precision {machine.precision_reason}")
    return machine


def _products(splits: Path, side: str, aisles: Aisles) -> pd.DataFrame:
    """One side of the split: names and labels."""
    columns = ["product_name", "department", *(["aisle"] if aisles else [])]
    return pd.read_parquet(splits / f"{side}.parquet", columns=columns)


def _facts(machine: Hardware, examples: TrainingSet, config: RunConfig) -> dict[str, Any]:
    """How it was trained, as far as that was settled before the first step."""
    return {
        "device": machine.device,
        "compute_dtype": machine.dtype_reason,
        "precision": machine.precision_reason,
        "packing": config.train.packing,
        "prefix_tokens": len(examples.prefix),
        "longest_tokens": examples.longest,
        "truncated_names": examples.names_truncated,
        "logging_steps": config.train.logging_steps,
    }


def _told(splits: Path) -> list[Path]:
    """What the build_dataset step wrote beside the products, as serving needs it too."""
    return [splits / name for name in _TOLD if (splits / name).is_file()]


def _require_fit(
    directory: Path, tokenizer: Any, examples: TrainingSet, config: RunConfig, machine: Hardware
) -> None:
    """The tokenizer must be the base's, and training must fit into memory."""
    shape = read_shape(directory, config.lora.r, config.lora.target_modules)
    if len(tokenizer) > shape.vocabulary:
        raise ModelError(
            f"the tokenizer in {directory} has {len(tokenizer):,} tokens, the base knows "
            f"{shape.vocabulary:,}: it is another model's"
        )
    expected = estimate(shape, examples, config, machine.dtype)
    require_memory(expected, config, machine.device, machine.dtype)


def _checkpoints(
    splits: Path, base: models.BaseReference, settings: SFTConfig, config: RunConfig
) -> Checkpoints | None:
    """The checkpoints of this run, named by all that decides its weights."""
    if config.train.checkpoints is None:
        return None
    ignored = {"checkpoints", "force", "price_per_gpu_hour"}
    identity = {
        "data": {
            path.name: file_digest(path) for path in (splits / "train.parquet", *_told(splits))
        },
        "base": base.to_json(),
        "compute_dtype": config.base.compute_dtype,
        "lora": config.lora.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=ignored),
        "processes": settings.world_size,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    return Checkpoints(config.train.checkpoints, identity)


def _run(
    trainer: GuardedTrainer, checkpoints: Checkpoints | None, config: RunConfig, out: Path
) -> dict[str, Any]:
    """Train, from the newest whole checkpoint where there is one; what it took."""
    device = trainer.args.device.type
    progress = Progress(device)
    callbacks = [progress]
    resumed, preemption = None, None
    if trainer.is_world_process_zero():
        callbacks += watchers(out / "tensorboard")
    if checkpoints is not None:
        preemption = Preemption(checkpoints)
        callbacks.append(preemption)
        resumed = checkpoints.newest(out / "checkpoints")
        say("train", f"resuming from {resumed.name}" if resumed else "no checkpoint to resume from")
    for callback in callbacks:
        trainer.add_callback(callback)
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    seconds = time.monotonic() - started
    state = trainer.state
    if preemption is not None and preemption.stopped:
        newest = preemption.published or "none, as above: the same run begins anew"
        raise TrainingError(
            f"stopped by SIGTERM at step {state.global_step} of {state.max_steps}; start the same "
            f"run again to resume from the newest checkpoint: {newest}"
        )
    share = 1 - progress.begun / state.global_step
    examples = len(trainer.train_dataset) * result.metrics["epoch"] * share
    memory, memory_kind = peak_memory(device)
    trainable, total = trainer.model.get_nb_trainable_parameters()
    return {
        "epochs": result.metrics["epoch"],
        "steps": state.global_step,
        "resumed_from_step": progress.begun,
        "processes": trainer.args.world_size,
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "tokens_per_second": trainer.tokens_seen * trainer.args.world_size / seconds,
        "cost": config.train.price_per_gpu_hour * seconds / 3600 * trainer.args.world_size
        if device == "cuda"
        else None,
        "peak_memory_mb": memory,
        "peak_memory_of": memory_kind,
        "parameters": total,
        "trainable_parameters": trainable,
        "losses": tuple(
            TrainingLoss(**{key: entry[key] for key in _LOGGED if key in entry})
            for entry in state.log_history
            if "loss" in entry
        ),
        "validation_losses": tuple(
            ValidationLoss(step=entry["step"], loss=entry["eval_loss"])
            for entry in state.log_history
            if "eval_loss" in entry
        ),
    }
