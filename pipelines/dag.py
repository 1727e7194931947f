"""A pipeline as data: which component reads which component's outputs, and which setting goes where.

    pipeline = Pipeline("synthesis", SynthesisConfig)
    ingested = pipeline.add(ingest)                                        # parameters: the fields of the same name
    trained = pipeline.add(train, examples=ingested["examples"])
    attacked = pipeline.add(attack, release=trained["release"], repetitions=Field("attack_repetitions"))

Every runner reads this one declaration. A node can only read what was added before it, so there are no cycles.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from components import Artifact, Component


class PipelineError(ValueError):
    """A pipeline is wired wrongly."""


@dataclasses.dataclass(frozen=True)
class Field:
    """The field of the configuration that gives a parameter its value."""

    name: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """An output of a node."""

    node: str
    output: str
    type: type[Artifact]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A component in its place.

    Attributes:
      component: what runs; its name is the node's.
      inputs: where each input comes from.
      fields: the configuration's field for each parameter.
      after: names of nodes that have to finish first, although nothing of theirs is read.
    """

    component: Component
    inputs: Mapping[str, Reference]
    fields: Mapping[str, str]
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The component's name."""
        return self.component.name

    @property
    def upstream(self) -> tuple[str, ...]:
        """The names of the nodes that this one waits for, each once."""
        return tuple(dict.fromkeys([*(source.node for source in self.inputs.values()), *self.after]))

    def __getitem__(self, output: str) -> Reference:
        """The output of that name, for a downstream node to read.

        Raises:
          PipelineError: if there is none.
        """
        if output not in self.component.outputs:
            raise PipelineError(f"{self.name} has no output `{output}`; it has {sorted(self.component.outputs)}.")
        return Reference(self.name, output, self.component.outputs[output])


class Pipeline:
    """Nodes in an order in which they can run.

    Args:
      name: of the pipeline.
      config: the dataclass whose fields are the pipeline's settings: str, int, float or bool, each with a default.
    """

    def __init__(self, name: str, config: type) -> None:
        self.name, self.config = name, config
        types = typing.get_type_hints(config)
        self.fields: dict[str, tuple[type, Any]] = {
            field.name: (types[field.name], field.default) for field in dataclasses.fields(config)
        }
        self.nodes: dict[str, Node] = {}

    def until(self, name: str) -> Pipeline:
        """The pipeline of the node called `name` and of all that it waits for, directly or not.

        Raises:
          PipelineError: if there is no such node.
        """
        if name not in self.nodes:
            raise PipelineError(f"pipeline {self.name} has no {name}; it has {sorted(self.nodes)}.")
        kept = {name}
        for node in reversed(self.nodes.values()):  # each comes after all that it waits for
            if node.name in kept:
                kept.update(node.upstream)
        part = Pipeline(self.name, self.config)
        part.nodes = {key: node for key, node in self.nodes.items() if key in kept}
        return part

    def add(self, component: Component, *, after: Sequence[Node] = (), **wiring: Reference | Field) -> Node:
        """Adds a node.

        Args:
          component: what it runs.
          after: nodes that have to finish before it starts, although it reads nothing of theirs.
          **wiring: a `Reference` for each input, and a `Field` for each parameter that is not named as its field is.

        Raises:
          PipelineError: if an input is not wired, an artifact or a parameter gets another type than it declares, or a
            name is unknown or there already.
        """
        if component.name in self.nodes:
            raise PipelineError(f"{component.name} is in pipeline {self.name} already.")
        if unknown := set(wiring) - set(component.inputs) - set(component.parameters):
            raise PipelineError(f"{component.name} has neither input nor parameter {sorted(unknown)}.")
        if strangers := [node.name for node in after if self.nodes.get(node.name) is not node]:
            raise PipelineError(f"{component.name} cannot come after {strangers}, which pipeline {self.name} lacks.")
        inputs, fields = {}, {}
        for name, artifact in component.inputs.items():
            source = wiring.get(name)
            if not isinstance(source, Reference) or source.node not in self.nodes:
                raise PipelineError(f"{component.name} needs `{name}`: an output of one of {sorted(self.nodes)}.")
            if source.type is not artifact:
                raise PipelineError(
                    f"`{name}` of {component.name} should be a {artifact.__name__}; {source.node}'s "
                    f"`{source.output}` is a {source.type.__name__}."
                )
            inputs[name] = source
        for name, parameter in component.parameters.items():
            field = wiring.get(name, Field(name))
            if not isinstance(field, Field) or field.name not in self.fields:
                raise PipelineError(
                    f"`{name}` of {component.name} should be a field of {self.config.__name__}; got {field}."
                )
            if self.fields[field.name][0] is not parameter.type:
                raise PipelineError(
                    f"`{name}` of {component.name} should be {parameter.type.__name__}; {self.config.__name__}."
                    f"{field.name} is {self.fields[field.name][0].__name__}."
                )
            fields[name] = field.name
        self.nodes[component.name] = Node(component, inputs, fields, tuple(node.name for node in after))
        return self.nodes[component.name]
