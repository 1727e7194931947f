"""A pipeline of small real components: c reads a and b, d reads c, and e reads a."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated

from components import Input, Output, PrivateExamples, Publication, SyntheticExamples, TrainedRelease
from components.component import component
from pipelines import Field, Pipeline


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    word: str = "a"
    times: int = 2
    fail: str = ""
    log: str = ""


def _step(log: str, name: str, fail: str) -> None:
    """Notes that the step has run, and fails if it is to."""
    with open(log, "a") as file:
        file.write(f"{name} {time.monotonic()}\n")
    if fail == f"{name} by Ctrl-C":
        raise KeyboardInterrupt
    if fail == name:
        raise ValueError(f"{name} was told\nto fail")


@component
def a(
    examples: Output[PrivateExamples],
    *,
    word: Annotated[str, "a word"],
    log: Annotated[str, "a file"] = "",
    fail: Annotated[str, "which step fails"] = "",
) -> None:
    """Writes a word."""
    _step(log, "a", fail)
    (examples.path / "word").write_text(word)


@component
def b(release: Output[TrainedRelease], *, repeats: Annotated[int, "how often"], log: Annotated[str, "a file"]) -> None:
    """Writes a number."""
    _step(log, "b", "")
    (release.path / "repeats").write_text(str(repeats))


@component
def c(
    examples: Input[PrivateExamples],
    release: Input[TrainedRelease],
    synthetic: Output[SyntheticExamples],
    *,
    log: Annotated[str, "a file"],
    fail: Annotated[str, "which step fails"],
) -> None:
    """Repeats a word."""
    _step(log, "c", fail)
    words = (examples.path / "word").read_text() * int((release.path / "repeats").read_text())
    (synthetic.path / "words").write_text(words)


@component
def d(synthetic: Input[SyntheticExamples], publication: Output[Publication], *, log: Annotated[str, "a file"]) -> None:
    """Copies words."""
    _step(log, "d", "")
    (publication.path / "words").write_text((synthetic.path / "words").read_text())


@component
def e(examples: Input[PrivateExamples], copy: Output[PrivateExamples], *, log: Annotated[str, "a file"]) -> None:
    """Copies a word."""
    _step(log, "e", "")
    (copy.path / "word").write_text((examples.path / "word").read_text())


def toy() -> Pipeline:
    """The pipeline."""
    pipeline = Pipeline("toy", ToyConfig)
    first, second = pipeline.add(a), pipeline.add(b, repeats=Field("times"))
    third = pipeline.add(c, examples=first["examples"], release=second["release"])
    pipeline.add(d, synthetic=third["synthetic"])
    pipeline.add(e, examples=first["examples"])
    return pipeline
