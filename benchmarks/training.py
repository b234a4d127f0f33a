"""Packed training against TRL's plain SFTTrainer: same prompts, weights, order, effective batch.

    .venv/bin/python benchmarks/training.py [--hidden 512] [--layers 8] [--batch 32] [--steps 4]

A random Llama as NF4, and prompts that list 21 departments (a prefix of about 130 tokens). Each
side runs in a process of its own; the plain side tokenises, pads and masks by itself. It runs
twice: as the recipe is with packing off (`plain`: one batch of 32 a step), and in batches of 8 that
are accumulated to 32 (`accumulated`), which a CPU does faster and in less memory. The first step
warms up and is not timed. The last line is one JSON object: `ratio` is examples/s of packed over
the faster of the two; `memory_ratio` is the peak of the whole process, plain over packed, and
`added_memory_ratio` what training adds to the loaded model.
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
ENTRIES = 1400
"""Of the tokenizer: so many give the prompt, the names and the labels as many tokens as Llama's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32, help="products an optimizer step")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps, one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--part", choices=["packed", "plain", "accumulated"], help=argparse.SUPPRESS
    )
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure(given)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        make_base(Path(scratch), given.hidden, given.layers)
        say("benchmark", "packed")
        packed = part("packed", scratch)
        say("benchmark", f"{packed['examples_per_second']:.1f} products/s; now plain")
        plain, accumulated = part("plain", scratch), part("accumulated", scratch)
    pairs = list(zip(packed["losses"], plain["losses"], strict=True))
    pairs += zip(packed["losses"], accumulated["losses"], strict=True)
    faster = max(plain["examples_per_second"], accumulated["examples_per_second"])
    found = {
        "ratio": packed["examples_per_second"] / faster,
        "memory_ratio": plain["peak_memory_mb"] / packed["peak_memory_mb"],
        "added_memory_ratio": plain["added_memory_mb"] / packed["added_memory_mb"],
        "largest_loss_difference": max(abs(one - other) for one, other in pairs),
        "hidden": given.hidden,
        "layers": given.layers,
        "threads": given.threads,
        "effective_batch": given.batch,
        "steps": given.steps,
        "packed": packed,
        "plain": plain,
        "accumulated": accumulated,
    }
    print(json.dumps(found))


def part(name: str, base: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--part", name, "--base", base]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def catalogue() -> tuple[list[str], list[str], tuple[str, ...]]:
    """Names, their departments, and the 21 departments of the sample catalogue."""
    with (CATALOGUE / "departments.csv").open() as file:
        named = {row["department_id"]: row["department"] for row in csv.DictReader(file)}
    with (CATALOGUE / "products.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["product_name"] for row in rows]
    return names, [named[row["department_id"]] for row in rows], tuple(sorted(named.values()))


def make_base(
    directory: Path,
    hidden: int,
    layers: int,
    intermediate: int | None = None,
    vocabulary: int = 4096,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """A Llama with random weights, and a tokenizer learnt from the catalogue."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    names, _, labels = catalogue()
    tokenizer = make_tokenizer(names, template(PromptConfig()), labels, ENTRIES)
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


def settings(given: argparse.Namespace, *extra: str) -> RunConfig:
    """The run of both sides."""
    return recipe("tiny").with_settings(
        [
            "lora.r=16",
            "lora.lora_alpha=32",
            "train.activation_checkpointing=true",
            "train.learning_rate=0.0002",
            f"train.max_steps={given.steps}",
            f"train.per_device_train_batch_size={given.batch}",
            "train.logging_steps=1",
            *extra,
        ]
    )


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Train one side, and say how fast it was and what it added to memory."""
    torch.set_num_threads(given.threads)
    config = settings(given)
    if given.part != "packed":
        config = settings(given, "train.packing=false")
    if given.part == "accumulated":
        config = config.with_settings(
            [
                f"train.per_device_train_batch_size={ACCUMULATED_BATCH}",
                f"train.gradient_accumulation_steps={given.batch // ACCUMULATED_BATCH}",
            ]
        )
    trainer = packed_or_plain(given.base, config, Path(tempfile.mkdtemp()))
    loaded = forget_peak_memory_mb()
    marks = mark_steps(trainer)
    trainer.train()
    peak = memory_mb("VmHWM")
    seconds = marks[-1] - marks[0]
    return {
        "examples_per_second": given.batch * (given.steps - 1) / seconds,
        "seconds": seconds,
        "added_memory_mb": peak - loaded,
        "peak_memory_mb": peak,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def packed_or_plain(base: Path, config: RunConfig, out: Path, rows: int = 2000) -> Any:
    """Grocer's trainer, or TRL's own on the prompts as text; with the same first weights."""
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
        say("benchmark", f"a prefix of {len(encoder.prefix)} tokens")
        return build_trainer(
            model, tokenizer, encode_products(products, encoder, config.train), args, config
        )
    texts = {
        "prompt": [encoder.template.render(name, labels) for name in names],
        "completion": [encoder.template.completion(department) for department in departments],
    }
    args.dataset_kwargs = None
    plain = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(texts),
        processing_class=tokenizer,
        peft_config=lora_config(config),
    )
    keep_adapter_in_float32(plain.model)
    return plain


def mark_steps(trainer: Any) -> list[float]:
    """Times at which optimizer steps ended."""
    from transformers import TrainerCallback

    marks: list[float] = []

    class Marks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.monotonic())

    trainer.add_callback(Marks())
    return marks


def forget_peak_memory_mb() -> float:
    """Resident memory of this process now, from which its peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def memory_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
