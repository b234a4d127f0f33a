"""Base models, prompts, tokenization, label tries, packing and calibration."""
