"""Typed artifacts that stages exchange, and the record that each step writes."""
