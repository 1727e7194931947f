"""The pipeline and the places that it can run: `local_run` (Beam) and `kubeflow_run` (Kubeflow Pipelines).

`pipelines.synthesis.SYNTHESIS` is the pipeline; it is not imported here, since it brings Beam with it.
"""

from pipelines.config import SynthesisConfig
from pipelines.dag import Field, Node, Pipeline, PipelineError

__all__ = ["Field", "Node", "Pipeline", "PipelineError", "SynthesisConfig"]
