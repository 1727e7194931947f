"""Upper bounds: what (epsilon, delta) allows any membership attack at most, whoever runs it.

    privacy_loss_upper_bound(epsilon=3.0, delta=1e-5)
    upper_bounds_of(epsilon=3.0, delta=1e-5)["add_or_remove"]["auc"]

Let M be (epsilon, delta)-differentially private and D, D' neighbours. A test that calls "member" has true positive
rate t = Pr[test(M(D))] and false positive rate f = Pr[test(M(D'))]. The definition, applied to the test and to its
complement in both directions, says (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776, theorem 2.1)

    t <= e^epsilon f + delta      and      1 - f <= e^epsilon (1 - t) + delta.

For which question it holds: is this single example in the data or not, all other examples equal, D and D' neighbours in
the relation that epsilon was accounted for. With add-or-remove, that is the example against its absence. Exchanging the
example for another is a removal and an addition: there the upper bounds are those of (2 epsilon, (1 + e^epsilon)
delta), or of the epsilon that was accounted for replace-one, whichever is smaller. An attack that compares examples
that were trained on with examples that were not asks the second question in effect. They hold for expectations; a
metric measured on few examples may exceed them by chance. They say nothing about telling private examples from noise,
which needs no example's secret.
"""

from __future__ import annotations

import math
from typing import Any


def privacy_loss_upper_bound(epsilon: float, delta: float) -> float:
    """The largest privacy loss that any membership attack can have: (e^epsilon - 1 + 2 delta) / (e^epsilon + 1).

    The sum of the two inequalities above, with a = t - f, is 1 + a <= e^epsilon (1 - a) + 2 delta. With even odds of
    membership, accuracy is P = (t + 1 - f) / 2, so that the privacy loss (P - 0.5) / 0.5 = 2 P - 1 = t - f, which is
    what Yeom et al. 2018 (arXiv 1709.01604) call membership advantage; Humphries et al. 2023 (arXiv 2010.12112) give
    the same bound.

    Args:
      epsilon: at least 0; infinity gives 1.
      delta: in [0, 1].

    Returns:
      A number in [0, 1].

    Raises:
      ValueError: if either lies outside its range.
    """
    _check(epsilon, delta)
    decay = math.exp(-epsilon)  # numerator and denominator divided by e^epsilon, which would overflow
    return min(1.0, (1 - decay + 2 * delta * decay) / (1 + decay))


def tpr_upper_bound(fpr: float, epsilon: float, delta: float) -> float:
    """The largest true positive rate at a false positive rate f: the smaller of the two bounds above.

    They are e^epsilon f + delta and 1 - e^-epsilon (1 - delta - f).

    Args:
      fpr: in [0, 1].
      epsilon: at least 0.
      delta: in [0, 1].

    Returns:
      A number in [0, 1].

    Raises:
      ValueError: if one lies outside its range.
    """
    _check(epsilon, delta)
    if not 0 <= fpr <= 1:
        raise ValueError(f"`fpr` should lie in [0, 1]; got {fpr!r}.")
    steep = math.exp(min(epsilon, 700.0)) * fpr + delta
    return min(1.0, steep, 1 - math.exp(-epsilon) * (1 - delta - fpr))


def auc_upper_bound(epsilon: float, delta: float) -> float:
    """The largest area under the ROC curve: that under `tpr_upper_bound`.

    Its two lines meet at f = (1 - delta) / (1 + e^epsilon).

    Args:
      epsilon: at least 0; infinity gives 1.
      delta: in [0, 1].

    Returns:
      A number in [0.5, 1].

    Raises:
      ValueError: if either lies outside its range.
    """
    _check(epsilon, delta)
    corner = (1 - delta) * math.exp(-epsilon) / (1 + math.exp(-epsilon))
    left = (delta + 1 - corner) / 2 * corner
    middle = (1 - corner + 1) / 2 * (1 - delta - corner)
    return left + middle + delta


def upper_bounds_of(epsilon: float, delta: float, epsilon_replace_one: float | None = None) -> dict[str, Any]:
    """All upper bounds, JSON-ready, for an example added or removed and for an example exchanged for another.

    Args:
      epsilon: accounted for add-or-remove.
      delta: of both epsilons.
      epsilon_replace_one: accounted for replace-one at the same delta, if it was.
    """
    group = 2 * epsilon, min(1.0, (1 + math.exp(min(epsilon, 700.0))) * delta)
    replaced = [group] if epsilon_replace_one is None else [group, (epsilon_replace_one, delta)]
    exchanges = [_metrics(*pair) for pair in replaced]
    return {
        "epsilon": epsilon,
        "delta": delta,
        "add_or_remove": _metrics(epsilon, delta),
        "exchange": {name: min(metrics[name] for metrics in exchanges) for name in exchanges[0]},
    }


def _metrics(epsilon: float, delta: float) -> dict[str, float]:
    """The upper bounds on each metric that attacks are measured by."""
    return {
        "privacy_loss": privacy_loss_upper_bound(epsilon, delta),
        "auc": auc_upper_bound(epsilon, delta),
        "tpr_at_1_percent_fpr": tpr_upper_bound(0.01, epsilon, delta),
        "tpr_at_01_percent_fpr": tpr_upper_bound(0.001, epsilon, delta),
    }


def _check(epsilon: float, delta: float) -> None:
    """Refuses what is no epsilon or no delta."""
    if not epsilon >= 0:
        raise ValueError(f"`epsilon` should be at least 0; got {epsilon!r}.")
    if not 0 <= delta <= 1:
        raise ValueError(f"`delta` should lie in [0, 1]; got {delta!r}.")
