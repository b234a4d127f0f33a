"""Scoring of product names by constrained decoding, one by one or for whole files."""
