"""The pipelines, their local runner and the command line."""
