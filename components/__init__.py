"""Kubeflow Pipelines components: one module per step, named as the step, and `images`.

A component only wires its stage. It imports the stage inside the reported block, so that an import
error is reported as a failure of the step. The package `trainjob` is the step train as a TrainJob.
"""
