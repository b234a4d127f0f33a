"""A compiled pipeline, versioned by its content, as YAML or as Kubernetes objects."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions


@dataclass(frozen=True)
class Package:
    """A pipeline to compile; `kind` is the prefix of its versions' names."""

    pipeline: Any
    kind: str

    @property
    def name(self) -> str:
        """Name of the pipeline in Kubeflow."""
        return str(self.pipeline.name)

    @property
    def version(self) -> str:
        """Name of the version, with a digest of the YAML."""
        return f"{self.kind}-{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"

    @property
    def steps(self) -> frozenset[str]:
        """Names of the tasks that run a container; conditions and loops do not."""
        spec = self.pipeline.pipeline_spec
        dags = [spec.root, *spec.components.values()]
        tasks = [task for component in dags for task in component.dag.tasks.items()]
        return frozenset(
            name for name, task in tasks if spec.components[task.component_ref.name].executor_label
        )

    @cached_property
    def text(self) -> str:
        """YAML, identical for the same configuration, images and kfp version."""
        return _compile(self.pipeline)

    def objects(self, namespace: str) -> str:
        """Return a Pipeline and a PipelineVersion, as YAML for Kubernetes."""
        options = KubernetesManifestOptions(
            pipeline_name=self.name,
            pipeline_version_name=self.version,
            namespace=namespace,
            include_pipeline_manifest=True,
        )
        return _compile(
            self.pipeline, kubernetes_manifest_format=True, kubernetes_manifest_options=options
        )


def _compile(pipeline: Any, **options: Any) -> str:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(path), **options)
        return path.read_text()
