"""Dataset: labelled examples with prompts, split by product name."""
