"""AuditResult: what an audit says, beside what it was a test of.

    result.lower_bound <= result.claimed_epsilon                 # else the claim is refuted at `result.confidence`

An audit's metrics are internal: they are computed on private examples (`black_box`), or tell how a training's noise
fell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class AuditResult:
    """The outcome of one audit; internal.

    Attributes:
      adversary: "white_box" or "black_box".
      claimed_epsilon: what the audited training claims, at `delta`, for adding or removing one example.
      delta: of the claim and of the bounds.
      lower_bound: epsilon that is refuted without any assumption, by `one_run_lower_bound`.
      lower_bound_gaussian: the same by `gaussian_one_run_lower_bound`, which assumes a Gaussian trade-off.
      confidence: of each of the bounds.
      canaries: m.
      guesses: r, fixed beforehand.
      right: how many of them were.
      facts: what was audited, as JSON-ready values: "method"; or "optimizer", with
        "lower_bound_independent", which assumes that canaries are independent, too.
      seconds: how long it took.
    """

    adversary: str
    claimed_epsilon: float
    delta: float
    lower_bound: float
    lower_bound_gaussian: float
    confidence: float
    canaries: int
    guesses: int
    right: int
    facts: Mapping[str, Any]
    seconds: float

    @property
    def is_refuted(self) -> bool:
        """Whether the bound that assumes nothing is higher than the claim."""
        return self.lower_bound > self.claimed_epsilon

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, those of `facts` among them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "facts"}
        return fields | dict(self.facts)
