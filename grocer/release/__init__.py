"""Bundles of adapters that passed the gate, and the registry that stores them."""
