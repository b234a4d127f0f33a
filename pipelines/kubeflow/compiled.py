"""A compiled pipeline, named by its content, as YAML or as Kubernetes objects."""

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
    """A pipeline as Kubeflow takes it; `kind` is how its versions' names begin."""

    pipeline: Any
    kind: str

    @property
    def name(self) -> str:
        """What Kubeflow lists it as."""
        return str(self.pipeline.name)

    @property
    def version(self) -> str:
        """Name of the version: another text has another one."""
        return f"{self.kind}-{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"

    @property
    def steps(self) -> frozenset[str]:
        """Names of its steps; conditions and loops are none."""
        spec = self.pipeline.pipeline_spec
        bodies = [spec.root, *spec.components.values()]
        tasks = [task for body in bodies for task in body.dag.tasks.items()]
        return frozenset(
            name for name, task in tasks if spec.components[task.component_ref.name].executor_label
        )

    @cached_property
    def text(self) -> str:
        """YAML: the same for the same configuration, images and kfp."""
        return _compiled(self.pipeline)

    def objects(self, namespace: str) -> str:
        """A Pipeline and a PipelineVersion, as Kubeflow's API server takes them from Kubernetes."""
        options = KubernetesManifestOptions(
            pipeline_name=self.name,
            pipeline_version_name=self.version,
            namespace=namespace,
            include_pipeline_manifest=True,
        )
        return _compiled(
            self.pipeline, kubernetes_manifest_format=True, kubernetes_manifest_options=options
        )


def _compiled(pipeline: Any, **options: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(path), **options)
        return path.read_text()
