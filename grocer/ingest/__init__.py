"""Ingest: read, check and join the tables of a catalogue and its orders."""
