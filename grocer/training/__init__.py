"""Fine-tuning with QLoRA: data set, trainer, checkpoints, memory estimate."""
