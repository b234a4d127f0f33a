"""Training speed and memory: sequence packing against TRL's SFTTrainer.

    .venv/bin/python benchmarks/training.py [--hidden 512] [--layers 8] [--batch 32] [--steps 4]

Both sides have the same prompts, weights, data order and effective batch: a random Llama as NF4,
and prompts that list 21 departments (a prefix of about 130 tokens). Each side runs in its own
process. TRL's trainer tokenizes, pads and masks itself, and runs twice: with one padded batch of
32 per step (`plain`), and with batches of 8 that are accumulated to 32 (`accumulated`), which is
faster on a CPU and needs less memory. The first step is a warm-up and is not timed.

The last line is one JSON object: `ratio` is examples/s, packed over the faster of the two;
`memory_ratio` is the peak of the whole process, plain over packed; `added_memory_ratio` is what
training adds to the loaded model.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch  # noqa: E402

from grocer.config.recipes import recipe  # noqa: E402
from grocer.config.run import RunConfig  # noqa: E402
from grocer.config.stages import PromptConfig  # noqa: E402
from grocer.model import base as models  # noqa: E402
from grocer.model.device import select_hardware  # noqa: E402
from grocer.model.prompt_template import template  # noqa: E402
from grocer.model.tiny_llama import make_tokenizer  # noqa: E402
from grocer.model.tokenization import Encoder  # noqa: E402
from grocer.progress import say  # noqa: E402

CATALOGUE = Path(__file__).resolve().parent.parent / "examples" / "catalogue"
ACCUMULATED_BATCH = 8
TOKENIZER_ENTRIES = 1400
"""With this size, prompts, names and labels have about as many tokens as with Llama's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32, help="products per optimizer step")
    parser.add_argument(
        "--steps", type=int, default=4, help="optimizer steps, including one warm-up step"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--side", choices=["packed", "plain", "accumulated"], help=argparse.SUPPRESS
    )
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        make_base(Path(scratch), options.hidden, options.layers)
        say("benchmark", "training with packed sequences")
        packed = run_side("packed", scratch)
        say("benchmark", f"{packed['examples_per_second']:.1f} products/s; now padded batches")
        plain, accumulated = run_side("plain", scratch), run_side("accumulated", scratch)
    pairs = list(zip(packed["losses"], plain["losses"], strict=True))
    pairs += zip(packed["losses"], accumulated["losses"], strict=True)
    faster = max(plain["examples_per_second"], accumulated["examples_per_second"])
    result = {
        "ratio": packed["examples_per_second"] / faster,
        "memory_ratio": plain["peak_memory_mb"] / packed["peak_memory_mb"],
        "added_memory_ratio": plain["added_memory_mb"] / packed["added_memory_mb"],
        "largest_loss_difference": max(abs(one - other) for one, other in pairs),
        "hidden": options.hidden,
        "layers": options.layers,
        "threads": options.threads,
        "effective_batch": options.batch,
        "steps": options.steps,
        "packed": packed,
        "plain": plain,
        "accumulated": accumulated,
    }
    print(json.dumps(result))


def run_side(name: str, base: str) -> dict[str, Any]:
    """Measure one side in a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--base", base]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(completed.stdout.splitlines()[-1])


def catalogue() -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return names, their departments, and the 21 departments of the sample catalogue."""
    with (CATALOGUE / "departments.csv").open() as file:
        departments = {row["department_id"]: row["department"] for row in csv.DictReader(file)}
    with (CATALOGUE / "products.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["product_name"] for row in rows]
    return (
        names,
        [departments[row["department_id"]] for row in rows],
        tuple(sorted(departments.values())),
    )


def make_base(
    directory: Path,
    hidden: int,
    layers: int,
    intermediate: int | None = None,
    vocabulary: int = 4096,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a Llama with random weights, and a tokenizer trained on the catalogue."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    names, _, labels = catalogue()
    tokenizer = make_tokenizer(names, template(PromptConfig()), labels, TOKENIZER_ENTRIES)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate or hidden * 8 // 3 // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 128 if hidden >= 2048 else hidden // 64),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(directory)


def settings(options: argparse.Namespace, *extra: str) -> RunConfig:
    """Return the configuration of both sides."""
    return recipe("tiny").with_settings(
        [
            "lora.r=16",
            "lora.lora_alpha=32",
            "train.activation_checkpointing=true",
            "train.learning_rate=0.0002",
            f"train.max_steps={options.steps}",
            f"train.per_device_train_batch_size={options.batch}",
            "train.logging_steps=1",
            *extra,
        ]
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train one side; return its speed, memory and losses."""
    torch.set_num_threads(options.threads)
    config = settings(options)
    if options.side != "packed":
        config = settings(options, "train.packing=false")
    if options.side == "accumulated":
        config = config.with_settings(
            [
                f"train.per_device_train_batch_size={ACCUMULATED_BATCH}",
                f"train.gradient_accumulation_steps={options.batch // ACCUMULATED_BATCH}",
            ]
        )
    trainer = make_trainer(options.base, config, Path(tempfile.mkdtemp()))
    loaded = reset_peak_memory_mb()
    times = record_step_times(trainer)
    trainer.train()
    peak = memory_mb("VmHWM")
    seconds = times[-1] - times[0]
    return {
        "examples_per_second": options.batch * (options.steps - 1) / seconds,
        "seconds": seconds,
        "added_memory_mb": peak - loaded,
        "peak_memory_mb": peak,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def make_trainer(base: Path, config: RunConfig, out: Path, rows: int = 2000) -> Any:
    """Return Grocer's trainer, or TRL's on the prompts as text, with the same initial weights."""
    import pandas as pd
    from datasets import Dataset, disable_progress_bars
    from trl import SFTTrainer

    from grocer.training.dataset import encode_products
    from grocer.training.trainer import (
        build_trainer,
        keep_adapter_in_float32,
        lora_config,
        training_arguments,
    )

    disable_progress_bars()
    names, departments, labels = catalogue()
    names, departments = names[:rows], departments[:rows]
    hardware = select_hardware(config)
    tokenizer = models.load_tokenizer(base)
    encoder = Encoder(tokenizer, template(PromptConfig()), labels)
    args = training_arguments(config, hardware, out)
    model = models.load_nf4(base, hardware.dtype, str(args.device))
    torch.manual_seed(config.train.seed)
    if config.train.packing:
        products = pd.DataFrame({"product_name": names, "department": departments})
        say("benchmark", f"prefix of {len(encoder.prefix)} tokens")
        return build_trainer(
            model, tokenizer, encode_products(products, encoder, config.train), args, config
        )
    texts = {
        "prompt": [encoder.template.render(name, labels) for name in names],
        "completion": [encoder.template.completion(department) for department in departments],
    }
    args.dataset_kwargs, args.eval_strategy = None, "no"
    plain = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(texts),
        processing_class=tokenizer,
        peft_config=lora_config(config),
    )
    keep_adapter_in_float32(plain.model)
    return plain


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
