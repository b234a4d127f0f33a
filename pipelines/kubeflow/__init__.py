"""The Kubeflow pipelines, their compilation, and submission to a server."""
