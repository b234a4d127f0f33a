"""Training speed and memory: sequence packing against TRL's SFTTrainer.

    .venv/bin/python benchmarks/training.py [--base smollm2] [--batch 32] [--steps 4]
    .venv/bin/python benchmarks/training.py --base random:tiny --batch 8 --steps 2   # seconds

All sides have the recipe `smollm2`, the same prompts, initial weights, data order and effective
batch. Each runs in its own process:

    packed        Grocer's trainer, loss of whole completions
    label         Grocer's trainer, loss of the choices among labels (train.loss=label)
    plain         TRL, one padded batch per step
    accumulated   TRL, padded batches of 8; faster on a CPU, and needs less memory
    padding_free  TRL, the batch as one sequence without padding

TRL tokenizes, pads and masks itself. It has no loss of labels, so `label` has other losses. The
first step is a warm-up and is not timed. To compare losses, compute in float32:
`--set base.compute_dtype=float32`.

The last line is one JSON object: `ratio` is products/s of `packed` over the fastest side of TRL,
`label_ratio` that of `label`; `memory_ratio` is the peak of the whole process, that side over
`packed`, and `added_memory_ratio` what training adds to the loaded model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import bases
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.model import base as models
from grocer.model.device import cpu_threads, select_hardware
from grocer.model.prompts.template import template
from grocer.model.prompts.tokenization import Encoder
from grocer.progress import say

ACCUMULATED_BATCH = 8
SIDES = {
    "packed": ["train.loss=completion"],
    "label": ["train.loss=label"],
    "plain": ["train.loss=completion", "train.packing=false"],
    "accumulated": ["train.loss=completion", "train.packing=false"],
    "padding_free": ["train.loss=completion", "train.packing=false"],
}
"""Settings of each side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="smollm2", help=bases.HELP)
    parser.add_argument("--batch", type=int, default=32, help="products per optimizer step")
    parser.add_argument(
        "--steps", type=int, default=4, help="optimizer steps, including one warm-up step"
    )
    parser.add_argument("--threads", type=int, default=cpu_threads())
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="setting of all sides"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = bases.find(options.base, Path(scratch))
        for side in options.sides:
            say("benchmark", f"training: {side}")
            results[side] = run_side(side, directory)
            say("benchmark", f"{side}: {results[side]['products_per_second']:.2f} products/s")
    settings = {key: getattr(options, key) for key in ("base", "batch", "steps", "threads", "set")}
    print(json.dumps({**compare(results), **settings, "sides": results}))


def compare(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of Grocer's sides to the fastest side of TRL, as far as both ran."""
    ours = {side: each for side, each in results.items() if side in ("packed", "label")}
    theirs = [each for side, each in results.items() if side not in ours]
    if not theirs or "packed" not in ours:
        return {}
    packed = ours["packed"]
    best = max(theirs, key=lambda each: each["products_per_second"])
    ratios = {
        "ratio": packed["products_per_second"] / best["products_per_second"],
        "memory_ratio": best["peak_memory_mb"] / packed["peak_memory_mb"],
        "added_memory_ratio": best["added_memory_mb"] / packed["added_memory_mb"],
        "largest_loss_difference": max(
            abs(one - other)
            for each in theirs
            for one, other in zip(packed["losses"], each["losses"], strict=True)
        ),
    }
    if "label" in ours:
        speed = ours["label"]["products_per_second"]
        ratios["label_ratio"] = speed / best["products_per_second"]
    return ratios


def run_side(side: str, directory: Path) -> dict[str, Any]:
    """Measure one side in a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    command += ["--directory", str(directory)]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train one side; return its speed, memory and losses."""
    torch.set_num_threads(options.threads)
    config = recipe("smollm2").with_settings(
        [
            "train.num_train_epochs=1",
            f"train.max_steps={options.steps}",
            f"train.per_device_train_batch_size={options.batch}",
            "train.logging_steps=1",
            *options.set,
            *SIDES[options.side],
        ]
    )
    if options.side == "accumulated":
        batch = min(ACCUMULATED_BATCH, options.batch)
        config = accumulate(config, batch)
    padding_free = options.side == "padding_free"
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(options.directory, config, Path(out), padding_free=padding_free)
        loaded = reset_peak_memory_mb()
        times = record_step_times(trainer)
        trainer.train()
    peak = memory_mb("VmHWM")
    seconds = times[-1] - times[0]
    return {
        "products_per_second": options.batch * (options.steps - 1) / seconds,
        "seconds": seconds,
        "added_memory_mb": peak - loaded,
        "peak_memory_mb": peak,
        "dtype": "bfloat16" if trainer.args.bf16 else "float32",
        "losses": losses(trainer),
    }


def accumulate(config: RunConfig, batch: int) -> RunConfig:
    """Return the configuration with batches of at most `batch`, and the same effective batch."""
    effective = config.train.per_device_train_batch_size
    return config.with_settings(
        [
            f"train.per_device_train_batch_size={batch}",
            f"train.gradient_accumulation_steps={effective // batch}",
        ]
    )


def losses(trainer: Any) -> list[float]:
    """Return the logged losses of a trainer."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def make_trainer(
    base: Path, config: RunConfig, out: Path, *, rows: int = 2000, padding_free: bool = False
) -> Any:
    """Return Grocer's trainer, or TRL's on the prompts as text, with the same initial weights."""
    import pandas as pd
    from datasets import disable_progress_bars

    from grocer.training.dataset import encode_products
    from grocer.training.trainer import build_trainer, training_arguments

    disable_progress_bars()
    names, departments, labels = bases.catalogue()
    products = pd.DataFrame({"product_name": names, "department": departments})[:rows]
    hardware = select_hardware(config)
    if not config.train.packing and config.prompt.template == "chat":
        sys.exit("prompt.template=chat: TRL's side needs a prompt that is plain text")
    tokenizer = models.load_tokenizer(base)
    encoder = Encoder(tokenizer, template(config.prompt), labels)
    args = training_arguments(config, hardware, out)
    model = models.load_nf4(base, hardware.dtype, str(args.device))
    torch.manual_seed(config.train.seed)
    examples = encode_products(products, encoder, config.train)
    tokens = f"{len(encoder.prefix)} prefix tokens, {examples.sizes.mean():.1f} of a product"
    say("benchmark", f"{tokens} · {hardware.dtype_reason}")
    if config.train.packing:
        return build_trainer(model, tokenizer, examples, args, config)
    return make_trl_trainer(model, encoder, products, args, config, padding_free)


def make_trl_trainer(
    model: Any, encoder: Encoder, products: Any, args: Any, config: RunConfig, padding_free: bool
) -> Any:
    """Return TRL's trainer on prompts and completions as text."""
    from datasets import Dataset
    from trl import SFTTrainer

    from grocer.training.trainer import keep_adapter_in_float32, lora_config

    texts = {
        "prompt": [encoder.template.render(n, encoder.labels) for n in products["product_name"]],
        "completion": [encoder.template.completion(label) for label in products["department"]],
    }
    args.dataset_kwargs, args.eval_strategy = None, "no"
    if padding_free:
        args.padding_free, args.max_length = True, None
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(texts),
        processing_class=encoder.tokenizer,
        peft_config=lora_config(config),
    )
    keep_adapter_in_float32(trainer.model)
    return trainer


def record_step_times(trainer: Any) -> list[float]:
    """Return a list that receives the end time of each optimizer step."""
    from transformers import TrainerCallback

    times: list[float] = []

    class StepTimes(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.monotonic())

    trainer.add_callback(StepTimes())
    return times


def reset_peak_memory_mb() -> float:
    """Reset the peak memory of this process; return its resident memory in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def memory_mb(field: str) -> float:
    """Return VmRSS (current) or VmHWM (peak) of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
