"""Evaluation of an adapter on products that it was not trained on."""
