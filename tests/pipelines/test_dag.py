from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from components import PrivateExamples, TrainedRelease
from pipelines import Field, Pipeline, PipelineError, SynthesisConfig
from pipelines.config import LOCAL_FIELDS, PAID, STARTS
from pipelines.dag import Reference
from pipelines.synthesis import SYNTHESIS
from tests.pipelines import toy_pipeline
from tests.pipelines.toy_pipeline import ToyConfig, toy


def test_wiring() -> None:
    nodes = toy().nodes
    assert list(nodes) == ["a", "b", "c", "d", "e"]
    assert {name: node.upstream for name, node in nodes.items()} == {
        "a": (), "b": (), "c": ("a", "b"), "d": ("c",), "e": ("a",)
    }  # fmt: skip
    assert nodes["b"].fields == {"repeats": "times", "log": "log"}
    assert nodes["c"].inputs["release"] == Reference("b", "release", TrainedRelease)


def test_a_node_can_wait_for_what_it_does_not_read() -> None:
    pipeline = toy()
    node = pipeline.add(_renamed("a"), after=[pipeline.nodes["d"], pipeline.nodes["b"]])
    assert node.inputs == {}
    assert node.upstream == ("d", "b")


def test_each_step_of_the_synthesis_waits_for_the_one_before() -> None:
    order = ["ingest", "preflight", "train", "generate", "attack", "evaluate", "audit", "publish"]
    assert list(SYNTHESIS.nodes) == order
    for earlier, later in itertools.pairwise(order):
        assert earlier in SYNTHESIS.nodes[later].upstream


def test_a_run_can_start_wherever_the_training_is_behind_it() -> None:
    assert [PAID, *STARTS] == list(SYNTHESIS.nodes)[list(SYNTHESIS.nodes).index("train") :]


def test_a_pipeline_can_end_early() -> None:
    part = toy().until("d")
    assert list(part.nodes) == ["a", "b", "c", "d"]
    assert list(toy().until("e").nodes) == ["a", "e"]
    assert list(SYNTHESIS.until("preflight").nodes) == ["ingest", "preflight"]
    with pytest.raises(PipelineError, match="pipeline toy has no z"):
        toy().until("z")


@dataclasses.dataclass(frozen=True)
class _OtherConfig:
    word: int = 1
    log: str = ""
    fail: str = ""


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (lambda p: p.add(toy_pipeline.a), "a is in pipeline toy already"),
        (lambda p: p.add(_renamed("a"), after=[toy().nodes["b"]]), "a2 cannot come after .'b'.*lacks"),
        (lambda p: p.nodes["a"]["rows"], "a has no output `rows`; it has .'examples'"),
        (lambda p: p.add(_renamed("c")), "c2 needs `examples`: an output of one of .'a', 'b'"),
        (
            lambda p: p.add(_renamed("e"), examples=p.nodes["b"]["release"]),
            "should be a PrivateExamples; b's `release`",
        ),
        (lambda p: p.add(_renamed("e"), examples=Reference("z", "examples", PrivateExamples)), "e2 needs `examples`"),
        (lambda p: p.add(_renamed("e"), example=p.nodes["a"]["examples"]), "neither input nor parameter .'example'"),
        (lambda p: p.add(_renamed("b")), "`repeats` of b2 should be a field of ToyConfig"),
        (lambda p: p.add(_renamed("b"), repeats=Field("word")), "`repeats` of b2 should be int; ToyConfig.word is str"),
        (lambda p: Pipeline("other", _OtherConfig).add(toy_pipeline.a), "`word` of a should be str; .*word is int"),
    ],
)
def test_wrong_wiring_is_refused(wire: Callable[[Pipeline], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        wire(toy())


def _renamed(name: str) -> Any:
    """A component of the toy pipeline under a name that is still free."""
    return dataclasses.replace(getattr(toy_pipeline, name), name=f"{name}2")


def test_settings_start_at_the_components_defaults() -> None:
    unused = {field.name for field in dataclasses.fields(SynthesisConfig)}
    for node in SYNTHESIS.nodes.values():
        for name, field in node.fields.items():
            unused.discard(field)
            if (node.name, name) != ("publish", "destination"):
                assert node.component.parameters[name].default == SYNTHESIS.fields[field][1], (node.name, name)
    assert unused == set(LOCAL_FIELDS)


def test_toy_config_is_complete() -> None:
    assert set(toy().fields) == {field.name for field in dataclasses.fields(ToyConfig)}
