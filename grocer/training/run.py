"""Fine-tune an adapter on a 4-bit base: QLoRA with TRL's SFTTrainer and PEFT."""

import math
import shutil
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft.helpers import disable_input_dtype_casting

from grocer.artifacts.adapter import Adapter, Loss, TrainingLoss
from grocer.artifacts.splits import Splits
from grocer.config.run import RunConfig
from grocer.errors import ModelError, StoppedError
from grocer.io.atomic import file_digest, json_digest, read_json, write_json
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.device import Hardware, cpu_threads, select_hardware
from grocer.model.hierarchy import AISLES_FILE, Aisles, read_aisles
from grocer.model.out_of_memory import explain_out_of_memory
from grocer.model.prompts.template import Template
from grocer.model.prompts.tokenization import Encoder
from grocer.model.sources.find import BaseReference, base_digest, find_base
from grocer.model.tiny_llama import TINY, tiny_base
from grocer.progress import say
from grocer.reports.training import loss_page
from grocer.training import memory_estimate
from grocer.training.callbacks import CheckpointPublisher, Progress, metric_loggers, peak_memory
from grocer.training.checkpoints import Checkpoints
from grocer.training.dataset import TrainingSet, encode_products
from grocer.training.packing_check import require_exact_packing
from grocer.training.sharding import save_adapter
from grocer.training.trainer import (
    MACHINE_SETTINGS,
    GuardedTrainer,
    build_trainer,
    resolve_epochs,
    training_arguments,
)

_LABEL_FILES = ("labels.json", AISLES_FILE, "template.json")
"""Files of the splits that the adapter needs too; `aisles.json` is optional."""
_LESS_MEMORY = (
    "lower train.per_device_train_batch_size (and raise train.gradient_accumulation_steps), "
    "prompt.max_name_tokens or lora.r, and keep train.activation_checkpointing=true"
)
_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def run(splits: Splits, config: RunConfig, out: Path) -> Adapter:
    """Train an adapter on the splits; write it with its base, labels and report into `out`.

    Under torchrun each process calls this with a different `out` and writes the same files.

    Raises:
        ModelError: the base cannot be found, loaded or used, or differs between processes.
        ConfigError: a product is longer than `train.max_length`.
        TrainingError: not enough memory, NaN or Inf, or SIGTERM; run again to resume.
        OutputError: `train.checkpoints` cannot be reached.
    """
    # Set up.
    labels, aisles = read_json(splits.directory / "labels.json"), read_aisles(splits.directory)
    template = Template(**read_json(splits.directory / "template.json"))
    columns = ["product_name", "department", *(["aisle"] if aisles else [])]
    products, unseen = (
        pd.read_parquet(splits.directory / f"{side}.parquet", columns=columns)
        for side in ("train", "validation")
    )
    config = resolve_epochs(config, len(products))
    hardware = _prepare_hardware(config)
    arguments = training_arguments(config, hardware, out / "checkpoints")
    # One process per machine downloads or pretrains the base; the others use its cache.
    with arguments.main_process_first(local=True):
        names = products["product_name"].tolist()
        directory, reference = _resolve_base(names, template, labels, aisles, config)
    tokenizer = load_tokenizer(directory)
    encoder = Encoder(tokenizer, template, labels, aisles)
    examples = encode_products(products, encoder, config.train)
    validation = encode_products(unseen, encoder, config.train)
    _log_examples(examples, template)
    _require_fit(directory, tokenizer, examples, config, hardware)
    identity = _identity(splits.directory, reference, arguments.world_size, config, hardware)
    _require_same(identity, arguments.world_size)
    root = config.train.checkpoints
    checkpoints = Checkpoints(root, identity) if root else None
    # Train.
    with explain_out_of_memory(_LESS_MEMORY):
        device, shardable = str(arguments.device), config.train.fsdp
        model = load_nf4(directory, hardware.dtype, device, shardable=shardable)
        require_exact_packing(model, encoder, _shortest_to_longest(products, examples))
        trainer = build_trainer(model, tokenizer, examples, arguments, config, validation)
        # PEFT does not count 4-bit weights once they are sharded.
        parameters = trainer.model.get_nb_trainable_parameters()
        measured = _train(trainer, checkpoints, out)
    # Save.
    save_adapter(trainer.model, out / "adapter")
    tokenizer.save_pretrained(out / "adapter")
    if config.base.source == TINY:
        shutil.copytree(directory, out / "base")
    write_json(out / "base.json", asdict(reference))
    for path in _label_files(splits.directory):
        shutil.copyfile(path, out / path.name)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    adapter = _adapter(reference, examples, hardware, config, trainer, parameters, measured)
    adapter.write(out)
    (out / "loss.html").write_text(loss_page(adapter), encoding="utf-8")
    return adapter


def _prepare_hardware(config: RunConfig) -> Hardware:
    # A second thread does not speed up the tiny base; on busy cores it doubles the time.
    torch.set_num_threads(1 if config.base.source == TINY else cpu_threads())
    hardware = select_hardware(config)
    dtype, precision = hardware.dtype_reason, hardware.precision
    say("train", f"device {hardware.device} · mixed precision {precision} · compute dtype {dtype}")
    return hardware


def _resolve_base(
    names: list[str], template: Template, labels: list[str], aisles: Aisles, config: RunConfig
) -> tuple[Path, BaseReference]:
    """Return the directory of the base and its reference."""
    if config.base.source != TINY:
        return find_base(config.base)
    directory = tiny_base(names, template, labels, config.tiny, aisles)
    return directory, BaseReference(TINY, base_digest(directory))


def _log_examples(examples: TrainingSet, template: Template) -> None:
    facts = f"{len(examples.sizes):,} products · {len(examples.prefix)} prefix tokens"
    if examples.truncated_names:
        limit = template.max_name_tokens
        facts += f" · {examples.truncated_names:,} names truncated to {limit} tokens"
    say("train", facts)


def _require_fit(
    directory: Path, tokenizer: Any, examples: TrainingSet, config: RunConfig, hardware: Hardware
) -> None:
    """Check that the tokenizer belongs to the base and that training fits into memory."""
    shape = memory_estimate.read_shape(directory, config.lora.r, config.lora.target_modules)
    if len(tokenizer) > shape.config.vocab_size:
        raise ModelError(
            f"the tokenizer in {directory} has {len(tokenizer):,} tokens, but the base's "
            f"vocabulary has {shape.config.vocab_size:,}: it belongs to another model"
        )
    device, dtype = hardware.device, hardware.dtype
    needed = memory_estimate.estimate(shape, examples, config, device, dtype)
    memory_estimate.require_memory(needed, config, device, dtype)


def _shortest_to_longest(products: pd.DataFrame, examples: TrainingSet) -> list[str]:
    """Return the names with the fewest, the median and the most tokens."""
    order = examples.sizes.argsort(kind="stable")
    rows = order[[0, len(order) // 2, -1]]
    return [str(name) for name in products["product_name"].iloc[rows]]


def _label_files(splits: Path) -> list[Path]:
    return [splits / name for name in _LABEL_FILES if (splits / name).is_file()]


def _identity(
    splits: Path, base: BaseReference, processes: int, config: RunConfig, hardware: Hardware
) -> dict[str, Any]:
    """Return everything that determines the weights of this run; nothing in it is `auto`."""
    files = (splits / "train.parquet", *_label_files(splits))
    return {
        "data": {path.name: file_digest(path) for path in files},
        "base": asdict(base),
        "device": hardware.device,
        "compute_dtype": str(hardware.dtype),
        "precision": hardware.precision,
        "lora": config.lora.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=MACHINE_SETTINGS),
        "processes": processes,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _require_same(identity: dict[str, Any], processes: int) -> None:
    """Check that all processes train the same: each loads or pretrains the base by itself."""
    digests: list[Any] = [json_digest(identity)] * processes
    if processes > 1:
        torch.distributed.all_gather_object(digests, digests[0])
    if len(set(digests)) > 1:
        raise ModelError(
            "the processes have different splits, bases or library versions; use nodes of one "
            "type, one image, and a base.source that is pinned to a commit"
        )


def _train(trainer: GuardedTrainer, checkpoints: Checkpoints | None, out: Path) -> dict[str, Any]:
    """Train, resuming from the newest complete checkpoint.

    Returns:
        `epochs`, `resumed_from_step` and `seconds`, as in `Adapter`.
    """
    progress, publisher, checkpoint = Progress(trainer.args.device.type), None, None
    callbacks = [progress]
    if trainer.is_world_process_zero():
        callbacks += metric_loggers(out / "tensorboard")
    if checkpoints is not None:
        publisher = CheckpointPublisher(checkpoints)
        callbacks.append(publisher)
        checkpoint = checkpoints.fetch_newest(out / "checkpoints")
        say("train", f"resuming from {checkpoint.name}" if checkpoint else "no checkpoint found")
    for callback in callbacks:
        trainer.add_callback(callback)
    started = time.monotonic()
    # Autocast converts the inputs; PEFT would convert them to float32 first, for nothing.
    autocast = trainer.accelerator.mixed_precision != "no"
    with disable_input_dtype_casting(trainer.model, active=autocast):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - started
    state = trainer.state
    if publisher is not None and publisher.stopped:
        resume = f" to resume from {publisher.published}" if publisher.published else ""
        raise StoppedError(
            f"stopped by SIGTERM at step {state.global_step} of {state.max_steps}; start the same "
            f"run again{resume}"
        )
    return {
        "epochs": float(result.metrics["epoch"]),
        "resumed_from_step": progress.first_step,
        "seconds": seconds,
    }


def _adapter(
    base: BaseReference,
    examples: TrainingSet,
    hardware: Hardware,
    config: RunConfig,
    trainer: GuardedTrainer,
    parameters: tuple[int, int],
    measured: dict[str, Any],
) -> Adapter:
    state, processes, seconds = trainer.state, trainer.args.world_size, measured["seconds"]
    products = len(examples.sizes)
    share = 1 - measured["resumed_from_step"] / state.global_step
    trained = products * measured["epochs"] * share
    memory, memory_kind = peak_memory(hardware.device)
    trainable, total = parameters
    return Adapter(
        base=base.source,
        device=hardware.device,
        compute_dtype=hardware.dtype_reason,
        precision=hardware.precision,
        packing=config.train.packing,
        prefix_tokens=len(examples.prefix),
        longest_tokens=examples.longest,
        truncated_names=examples.truncated_names,
        logging_steps=config.train.logging_steps,
        examples=products,
        steps=state.global_step,
        processes=processes,
        examples_per_second=trained / seconds,
        tokens_per_second=trainer.tokens_seen * processes / seconds,
        peak_memory_mb=memory,
        peak_memory_of=memory_kind,
        parameters=total,
        trainable_parameters=trainable,
        losses=tuple(_training_loss(entry) for entry in state.log_history if "loss" in entry),
        validation_losses=tuple(
            Loss(step=entry["step"], loss=entry["eval_loss"])
            for entry in state.log_history
            if "eval_loss" in entry
        ),
        **measured,
    )


def _training_loss(entry: dict[str, Any]) -> TrainingLoss:
    """Return the log entry; the gradient norm of a step that loss scaling skips is not finite."""
    norm = entry.get("grad_norm")
    return TrainingLoss(
        step=entry["step"],
        loss=entry["loss"],
        grad_norm=float(norm) if norm is not None and math.isfinite(norm) else None,
        learning_rate=entry.get("learning_rate"),
    )
