"""Prompt templates, the normal form of product names, and their tokenization."""
