"""Retraining on condition: whether a new model is due, and when one was judged last."""
