"""Atomic files, digests, object storage, tables and archives."""
