"""Conversion of GGUF files of Llama models into directories that transformers loads."""

VERSION = 1
"""Part of the cache key; increase it when the same file gives other weights or tokens."""
