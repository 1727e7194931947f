"""The steps of the pipeline, and what they hand to each other.

Each step is a module that holds a `Component` of its own name and can be run alone:

    from components.train import train              # python -m components.train --help

The decorator that makes them is `components.component.component`.
"""

from components.artifacts import (
    Artifact,
    ArtifactError,
    AttackMetrics,
    AuditMetrics,
    Input,
    Output,
    PreflightEstimate,
    PrivateExamples,
    PrivateNetworks,
    Publication,
    SyntheticExamples,
    TrainedRelease,
    UtilityMetrics,
)
from components.component import Component, ComponentError, Parameter

__all__ = [
    "Artifact",
    "ArtifactError",
    "AttackMetrics",
    "AuditMetrics",
    "Component",
    "ComponentError",
    "Input",
    "Output",
    "Parameter",
    "PreflightEstimate",
    "PrivateExamples",
    "PrivateNetworks",
    "Publication",
    "SyntheticExamples",
    "TrainedRelease",
    "UtilityMetrics",
]
