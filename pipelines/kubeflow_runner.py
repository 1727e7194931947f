"""Compiles a pipeline to Kubeflow Pipelines' intermediate representation (IR YAML, KFP v2).

    compile_pipeline(SYNTHESIS, "pipeline.yaml", image="registry/tfdpgen:1")

Every field of the pipeline's configuration that a node reads becomes a runtime parameter of the same name, type and
default; what only the local run can do, such as starting at a later step, does not. Every node
becomes a lightweight Python component whose code imports the component from the image and executes it on the paths that
Kubeflow gives it; nothing is installed at run time, so the image has to hold this package with its extra `kubeflow`.
Caching is off: a cached ingest would hide changed data, and a cached publish would push nothing.

Kubeflow keeps every artifact in its object store, private rows (ingest's `examples`) and internal figures too: that
store is inside the trust boundary. `output_dir`, `ledger` and `backup` are paths in the container; mount a volume
to keep them.
"""

from __future__ import annotations

import inspect
import linecache
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components import Artifact, Component, PrivateExamples, SyntheticExamples, TrainedRelease
from components.component import Parameter
from pipelines.dag import Pipeline

_KINDS: dict[type[Artifact], str] = {PrivateExamples: "Dataset", SyntheticExamples: "Dataset", TrainedRelease: "Model"}


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
    steps = {
        name: dsl.component(_function(node.component), base_image=image, install_kfp_package=False)
        for name, node in pipeline.nodes.items()
    }

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

    # Read by `inspect.signature`, and so by kfp; the type of functions does not mention it.
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)
            for name, (kind, default) in fields.items()
        ]
    )
    return dsl.pipeline(build, name=pipeline.name)


def _function(component: Component) -> Any:
    """The component as a function of kfp's own types. kfp ships its source text, so it is made from text."""
    arguments = [f"{name}: Input[{_KINDS.get(kind, 'Artifact')}]" for name, kind in component.inputs.items()]
    arguments += [f"{name}: Output[{_KINDS.get(kind, 'Artifact')}]" for name, kind in component.outputs.items()]
    # An argument without a default may not follow one that has one.
    for name, parameter in sorted(
        component.parameters.items(), key=lambda item: item[1].default is not Parameter.REQUIRED
    ):
        default = "" if parameter.default is Parameter.REQUIRED else f" = {parameter.default!r}"
        arguments.append(f"{name}: {parameter.type.__name__}{default}")
    source = f"""\
def {component.name}(
    {", ".join(arguments)},
):
    {component.summary!r}
    from components.component import quiet_start
    from {component.fn.__module__} import {component.name} as step

    quiet_start()
    step.execute(
        {_mapping(component.inputs, ".path")},
        {_mapping(component.outputs, ".path")},
        {_mapping(component.parameters)},
    )
"""
    filename = f"<kubeflow component {component.name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = dict(vars(dsl))
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    return namespace[component.name]


def _mapping(names: Any, attribute: str = "") -> str:
    """The text of a dictionary from each name to the argument of that name, or to an attribute of it."""
    return "{" + ", ".join(f"{name!r}: {name}{attribute}" for name in names) + "}"
