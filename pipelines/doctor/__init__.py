"""The probes of `grocer doctor`."""
