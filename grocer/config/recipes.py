"""Named recipes: functions that return a whole `RunConfig`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from grocer.config.deployment import ClusterConfig
from grocer.config.run import RunConfig
from grocer.config.stages import (
    BaseConfig,
    EvaluationConfig,
    GatePolicy,
    LoraSettings,
    TrainConfig,
)
from grocer.errors import ConfigError


def llama2_7b_t4() -> RunConfig:
    """Llama-2-7b, NF4 with float16 compute, sized for one T4 with 15 GiB."""
    return RunConfig(recipe="llama2-7b-t4", base=BaseConfig(compute_dtype="float16", device="cuda"))


def tiny() -> RunConfig:
    """A Llama of about a million parameters that the run makes itself: no GPU, minutes on a laptop.

    Its gate asks for 0.85 on the sample catalogue. It may trail the linear baseline, which a
    million frozen parameters and an adapter don't reach, by up to 0.12; the report shows both.
    """
    return RunConfig(
        recipe="tiny",
        base=BaseConfig(source="tiny", compute_dtype="float32", device="cpu"),
        lora=LoraSettings(r=32, lora_alpha=64),
        train=TrainConfig(
            num_train_epochs=4.0,
            learning_rate=2.5e-3,
            max_grad_norm=1.0,
            optim="adamw_torch",
            precision="fp32",
            activation_checkpointing=False,
            # A second thread gains little at this size, and where cores are busy it costs twice.
            threads=1,
        ),
        evaluation=EvaluationConfig(train_sample=1000, base_model_sample=1000),
        gate=GatePolicy(linear_margin=0.12),
        cluster=ClusterConfig(accelerator=None, model_memory="4Gi", model_cpu="2"),
    )


RECIPES: Mapping[str, Callable[[], RunConfig]] = {"tiny": tiny, "llama2-7b-t4": llama2_7b_t4}


def recipe(name: str) -> RunConfig:
    """The recipe called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(RECIPES)}"
        raise ConfigError(f"--recipe {name}: no such recipe; {hint}")
    return RECIPES[name]()
