"""Kubeflow Pipelines components: one module per step, named as the step."""
