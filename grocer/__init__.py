"""Grocer's domain: assign each product of an online grocery to exactly one department."""

__version__ = "0.2.0"
