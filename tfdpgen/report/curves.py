"""What the report draws, from the metrics of a summary: ROC curves, and epsilon as the training went on.

    roc_chart(summary["attacks"], epsilon=3.0, delta=1e-5, epsilon_replace_one=5.7)
    epsilon_chart(summary["privacy"])

Each gives None where the summary lacks what is to be drawn. ROC curves have logarithmic axes, since what an attack is
sure of happens at low false positive rates: Carlini et al. 2022 (arXiv 2112.03570), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from tfdpgen.attacks.upper_bounds import tpr_upper_bound
from tfdpgen.privacy.accounting import epsilon_of, poisson_gaussian_event
from tfdpgen.report.charts import Axis, Line, line_chart

_LOWEST_RATE = 1e-3
_RATES = tuple(float(rate) for rate in np.geomspace(_LOWEST_RATE, 1.0, 61))
_SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the steps; each takes a fraction of a second
_LARGEST_EPSILON = 300.0  # beyond it every upper bound is 1


def roc_chart(
    name: str,
    metrics: Mapping[str, Any],
    *,
    epsilon: float,
    delta: float,
    epsilon_replace_one: float | None = None,
) -> Markup | None:
    """The ROC curve of one attack, its interval, guessing and, for a membership attack, what the promise allows.

    Args:
      name: of the attack.
      metrics: `roc` of {fpr, tpr, low, high}, equally long lists of rates, and `is_membership`.
      epsilon: of the promise, where an example is added or removed.
      delta: of the promise.
      epsilon_replace_one: of the same mechanisms where an example is exchanged, if it was accounted.

    Returns:
      The chart, or None without a curve.
    """
    roc = metrics.get("roc") or {}
    fpr, tpr, low, high = (_numbers(roc.get(key)) for key in ("fpr", "tpr", "low", "high"))
    if fpr is None or tpr is None or len(fpr) != len(tpr):
        return None
    band = (low, high) if low and high and len(low) == len(high) == len(fpr) else None
    # The curve enters the logarithmic axis where it is cut off: at its value there, not at that of rate 0.
    lines = [_cut(Line(name, fpr, tpr, band=band)), Line("guessing", _RATES, _RATES, style="chance")]
    if metrics.get("is_membership"):
        epsilon = min(epsilon, _LARGEST_EPSILON)
        added = [tpr_upper_bound(rate, epsilon, delta) for rate in _RATES]
        lines.append(Line("most that ε, δ allow: an example added or removed", _RATES, added, style="bound"))
        group = 2 * epsilon, min(1.0, (1 + math.exp(epsilon)) * delta)
        pairs = [group, *([(min(epsilon_replace_one, _LARGEST_EPSILON), delta)] if epsilon_replace_one else [])]
        exchanged = [min(tpr_upper_bound(rate, *pair) for pair in pairs) for rate in _RATES]
        lines.append(Line("an example exchanged for another", _RATES, exchanged, style="bound far"))
    return line_chart(
        f"ROC curve of {name} on logarithmic axes",
        Axis("false positive rate", _LOWEST_RATE, 1.0, is_log=True),
        Axis("true positive rate", _LOWEST_RATE, 1.0, is_log=True),
        lines,
    )


def epsilon_chart(privacy: Mapping[str, Any]) -> Markup | None:
    """Epsilon of the DP-SGD steps alone, by PLD and by RDP, after each number of steps.

    Args:
      privacy: a statement's facts: `num_examples`, `expected_batch_size`, `steps`, `noise_multiplier` and `delta`.

    Returns:
      The chart, or None where there was no DP-SGD, or none with noise.
    """
    facts = [privacy.get(key) for key in ("num_examples", "expected_batch_size", "steps", "noise_multiplier", "delta")]
    if not all(isinstance(fact, (int, float)) and math.isfinite(fact) and fact > 0 for fact in facts):
        return None
    num_examples, batch, steps, noise_multiplier, delta = (float(fact) for fact in facts if fact is not None)
    if batch > num_examples or delta >= 1 or steps < 2:
        return None
    numbers = sorted({max(1, round(share * steps)) for share in _SHARES})
    lines = []
    for accountant, name in (("pld", "PLD, which decides"), ("rdp", "RDP")):
        spent = [
            epsilon_of(poisson_gaussian_event(batch / num_examples, noise_multiplier, number), delta, accountant)
            for number in numbers
        ]
        lines.append(Line(name, [0, *numbers], [0.0, *spent]))
    highest = max(value for line in lines for value in line.y)
    return line_chart(
        "epsilon of the DP-SGD steps against their number, by PLD and by RDP",
        Axis("steps", 0, steps),
        Axis("ε of the steps alone", 0, 1.05 * highest),
        lines,
    )


def _numbers(values: Any) -> Sequence[float] | None:
    """A list of finite numbers, or None where it is something else."""
    if not isinstance(values, (list, tuple)) or not values:
        return None
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return None
    return [float(value) for value in values]


def _cut(line: Line) -> Line:
    """The part of a curve on the axis, from the last point at or before its start."""
    first = max((place for place, rate in enumerate(line.x) if rate <= _LOWEST_RATE), default=0)
    band = (line.band[0][first:], line.band[1][first:]) if line.band else None
    return Line(line.name, line.x[first:], line.y[first:], line.style, band)
