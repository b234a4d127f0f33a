"""Grocer's domain: what puts every product of an online grocery into exactly one department."""

__version__ = "0.1.0"
