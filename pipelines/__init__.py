"""The pipelines, the local runner and the command line."""
