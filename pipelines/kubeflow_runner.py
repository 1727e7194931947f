"""Compiles a pipeline to Kubeflow Pipelines' intermediate representation (IR YAML, KFP v2).

    compile_pipeline(SYNTHESIS, "pipeline.yaml", image="registry/tfdpgen:1")

Every field of the pipeline's configuration that a node reads becomes a runtime parameter of the same name, type and
default; what only the local run can do, such as starting at a later step, does not. Every node becomes a container
component that runs `python3 -m pipelines.kubeflow_step` on the paths and parameters that Kubeflow gives it (see
kubeflow_step.py). Nothing is installed at run time, so the image has to hold this package; it does not need kfp.
Caching is off: a cached ingest would hide changed data, and a cached publish would push nothing.

Kubeflow keeps every artifact in its object store, private examples (ingest's `examples`) and internal metrics too: that
store is inside the trust boundary. `output_dir`, `ledger` and `backup` are paths in the container; mount a volume
to keep them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components import Artifact, Component, PrivateExamples, SyntheticExamples, TrainedRelease
from pipelines.dag import Pipeline

_KINDS: dict[type[Artifact], type[dsl.Artifact]] = {
    PrivateExamples: dsl.Dataset,
    SyntheticExamples: dsl.Dataset,
    TrainedRelease: dsl.Model,
}


def compile_pipeline(pipeline: Pipeline, output: str | Path, *, image: str) -> None:
    """Writes the pipeline as IR YAML.

    Args:
      pipeline: what to compile.
      output: file that ends in .yaml.
      image: container image that holds this package.

    Raises:
      ValueError: if `output` does not end in .yaml or `image` is empty.
    """
    if Path(output).suffix not in (".yaml", ".yml"):
        raise ValueError(f"`output` should end in .yaml; got {str(output)!r}.")
    if not image:
        raise ValueError("`image` should name a container image; got an empty text.")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(kubeflow_pipeline(pipeline, image=image), str(output))


def kubeflow_pipeline(pipeline: Pipeline, *, image: str) -> Any:
    """The pipeline as a `kfp.dsl.pipeline`, which kfp can compile, submit, or run by `kfp.local`."""
    steps = {name: _container_component(node.component, image) for name, node in pipeline.nodes.items()}

    read = {field for node in pipeline.nodes.values() for field in node.fields.values()}
    fields = {name: facts for name, facts in pipeline.fields.items() if name in read}

    def build(*values: Any) -> None:
        settings = dict(zip(fields, values, strict=True))
        tasks: dict[str, Any] = {}
        for name, node in pipeline.nodes.items():
            artifacts = {key: tasks[source.node].outputs[source.output] for key, source in node.inputs.items()}
            tasks[name] = steps[name](**artifacts, **{key: settings[field] for key, field in node.fields.items()})
            tasks[name].set_caching_options(False)
            if node.after:
                tasks[name].after(*(tasks[earlier] for earlier in node.after))

    arguments = [_argument(name, kind, default) for name, (kind, default) in fields.items()]
    return dsl.pipeline(_with_signature(build, arguments), name=pipeline.name)


def _container_component(component: Component, image: str) -> Any:
    """The component as kfp's container component, with artifacts and parameters of the same names and types."""
    arguments = [
        *(_argument(name, dsl.Input[_kfp_type(kind)]) for name, kind in component.inputs.items()),
        *(_argument(name, dsl.Output[_kfp_type(kind)]) for name, kind in component.outputs.items()),
        # Stable: an argument without a default may not follow one that has one.
        *sorted(
            (_argument(name, parameter.type, parameter.default) for name, parameter in component.parameters.items()),
            key=lambda argument: argument.default is not inspect.Parameter.empty,
        ),
    ]

    def build(*placeholders: Any) -> dsl.ContainerSpec:
        given = dict(zip((argument.name for argument in arguments), placeholders, strict=True))
        return dsl.ContainerSpec(
            image=image,
            command=["python3", "-m", "pipelines.kubeflow_step"],
            args=[
                f"--component={component.fn.__module__}:{component.name}",
                *(f"--input={name}={given[name].path}" for name in component.inputs),
                *(f"--output={name}={given[name].path}" for name in component.outputs),
                "--executor_input",
                dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
            ],
        )

    build.__name__, build.__doc__ = component.name, component.summary
    return dsl.container_component(_with_signature(build, arguments))


def _kfp_type(kind: type[Artifact]) -> Any:
    """The type of artifact that kfp knows one of ours as."""
    return _KINDS.get(kind, dsl.Artifact)


def _argument(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """An argument of a function that kfp reads."""
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)


def _with_signature(function: Callable[..., Any], arguments: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """The function, which takes any positional arguments, with the signature that kfp is to find."""
    function.__signature__ = inspect.Signature(list(arguments))  # type: ignore[attr-defined]
    return function
