"""The steps that the retraining pipeline adds to those of training."""
