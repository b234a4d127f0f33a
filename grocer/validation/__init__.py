"""Validation: check the ingested tables with Great Expectations."""
