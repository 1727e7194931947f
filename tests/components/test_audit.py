"""The audit as a step: metrics where canaries are asked for, and nothing trained or kept otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components import AuditMetrics, ComponentError
from components.audit import audit
from components.ingest import ingest
from pipelines.config import SynthesisConfig

_KEYS = {
    "adversary",
    "claimed_epsilon",
    "delta",
    "lower_bound",
    "lower_bound_gaussian",
    "confidence",
    "canaries",
    "guesses",
    "right",
    "seconds",
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ingest") / "examples"
    ingest.execute({}, {"examples": folder})
    return folder


def _audit(examples: Path, folder: Path, **parameters: Any) -> dict[str, Any]:
    audit.execute({"examples": examples}, {"audited": folder}, parameters)
    return json.loads((AuditMetrics.open(folder).path / "audit.json").read_text())


def test_without_canaries_there_are_no_metrics(examples: Path, tmp_path: Path) -> None:
    assert _audit(examples, tmp_path / "audited") == {}


def test_the_method_is_audited_with_canaries_among_the_examples(examples: Path, tmp_path: Path) -> None:
    settings = {"canaries": 300, "method": "gaussian_mixture", "insecure_reproducible": True}
    metrics = _audit(examples, tmp_path / "audited", **settings)
    assert set(metrics) == {*_KEYS, "method"}
    assert (metrics["adversary"], metrics["method"]) == ("black_box", "gaussian_mixture")
    assert (metrics["claimed_epsilon"], metrics["delta"], metrics["canaries"]) == (3.0, 1e-5, 300)
    assert 0 <= metrics["lower_bound"] < 3
    again = _audit(examples, tmp_path / "again", **settings)
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0}
    assert AuditMetrics.open(tmp_path / "again").internal
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"artifact.json", "audit.json"}  # no model


def test_the_optimizer_is_audited_without_any_example(examples: Path, tmp_path: Path) -> None:
    metrics = _audit(
        examples, tmp_path / "audited", canaries=3_000, adversary="white_box", epsilon=4.0, insecure_reproducible=True
    )
    assert set(metrics) == {*_KEYS, "lower_bound_independent", "optimizer"}
    assert metrics["optimizer"]["name"] == "DPKerasAdam"
    assert 0.5 < metrics["lower_bound"] < metrics["claimed_epsilon"] <= 4


def test_an_unknown_adversary_is_refused(examples: Path, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="`adversary`"):
        _audit(examples, tmp_path / "audited", adversary="grey_box")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"audit_canaries": 1}, "audit_canaries"),
        ({"audit_canaries": -5}, "audit_canaries"),
        ({"audit_canaries": 200_000}, "delta"),
        ({"audit_adversary": "grey_box"}, "audit_adversary"),
    ],
)
def test_a_run_that_cannot_be_audited_is_refused_before_it_starts(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        SynthesisConfig(**settings)
