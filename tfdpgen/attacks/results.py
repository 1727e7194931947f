"""Results: from scores of members and non-members to metrics, each with an interval.

    result = compare_scores(member_scores, nonmember_scores, threshold=None)     # [repetitions, candidates] each
    result.privacy_loss, result.privacy_loss_interval
    strongest_attack(results).interval                  # corrected for having looked at all of them

Intervals are Clopper and Pearson's (1934), since the bootstrap collapses where an attack errs never, which is where
it matters. Every interval holds Student's t over the repetitions too. `compare_scores` says what is counted for which.

All metrics are computed from private examples without noise: they are internal and not covered by any epsilon.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
import sklearn.metrics

from tfdpgen.attacks.base import Access

Interval = tuple[float, float]

_ROC_FPRS = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 61)])  # 20 a decade, which have 1 % among them


@dataclasses.dataclass(frozen=True)
class Roc:
    """Points of a ROC curve and the pointwise interval of each; internal.

    Attributes:
      fpr, tpr, low, high: as many numbers in [0, 1] each, by increasing false positive rate.
    """

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """What one attack achieved; internal.

    Attributes:
      accuracy: P, the share of right answers among as many members as non-members; a score at the threshold counts
        half.
      privacy_loss: (P - 0.5) / 0.5 in [-1, 1], which is the true positive rate minus the false positive rate.
      auc: the probability that a random member scores higher than a random non-member; ties count half.
      tpr_at_1_percent_fpr, tpr_at_01_percent_fpr: the true positive rate where the false positive rate is 0.01 or 0.001
        (Carlini et al. 2022, arXiv 2112.03570). Fewer than 100 or 1000 non-members cannot show that rate:
        the metric is then interpolated, and its interval starts at 0.
      accuracy_interval and the like: see `compare_scores`.
      roc: the whole curve.
      repetitions: how often the attack was run.
      num_members, num_nonmembers: candidates in one repetition.
      description, access, paper: of the attack.
      is_membership: whether upper bounds have anything to do with it.
      accuracies: of each repetition.
    """

    accuracy: float
    accuracy_interval: Interval
    privacy_loss: float
    privacy_loss_interval: Interval
    auc: float
    auc_interval: Interval
    tpr_at_1_percent_fpr: float
    tpr_at_1_percent_fpr_interval: Interval
    tpr_at_01_percent_fpr: float
    tpr_at_01_percent_fpr_interval: Interval
    roc: Roc
    repetitions: int
    num_members: int
    num_nonmembers: int
    description: str
    access: Access
    paper: str
    is_membership: bool
    accuracies: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The metrics as JSON-ready values."""
        metrics = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {**metrics, "roc": {name: list(values) for name, values in vars(self.roc).items()}}

    def accuracy_interval_at(self, confidence: float) -> Interval:
        """The interval of the accuracy at another confidence."""
        return _interval(np.array(self.accuracies), 2 * min(self.num_members, self.num_nonmembers), confidence)


@dataclasses.dataclass(frozen=True)
class StrongestAttack:
    """The membership attack with the highest privacy loss; internal.

    Attributes:
      name: of the attack.
      privacy_loss: its metric.
      interval: holds the true privacy loss with `confidence`, although the highest of several metrics was picked.
      confidence: of the interval.
      looked_at: how many membership attacks were compared.
      correction: what the interval allows for, in words.
    """

    name: str
    privacy_loss: float
    interval: Interval
    confidence: float
    looked_at: int
    correction: str

    def to_dict(self) -> dict[str, Any]:
        """The metrics as JSON-ready values."""
        return {**dataclasses.asdict(self), "interval": list(self.interval)}


def compare_scores(
    member_scores: npt.ArrayLike,
    nonmember_scores: npt.ArrayLike,
    threshold: float | None,
    confidence: float = 0.95,
    *,
    description: str = "",
    access: Access = "samples",
    paper: str = "",
    is_membership: bool = True,
) -> AttackResult:
    """Compares the scores of members with those of non-members.

    Each interval holds two: Student's t over the repetitions' metrics, which covers the chance in draws and training,
    and one for the candidates of a single repetition, which covers the chance in who was asked. The second keeps an
    interval from vanishing where all repetitions agree (5 times 100 of 100 right is no proof of certainty) and stands
    alone where there is one repetition. It counts examples once, since repetitions ask about the same people:

    - accuracy: Clopper and Pearson's, of as many answers as there were. Two groups with a rate each vary less than one
      with the rate between (Hoeffding 1956), so that it covers at least as often as it says.
    - AUC: Clopper and Pearson's, of min(members, non-members) answers; the variance of an AUC is at most
      AUC (1 - AUC) / min(members, non-members) (Birnbaum and Klose 1957), so that it is wider than need be.
    - true positive rate at a false positive rate f: the rate of false positives above the j-th largest of the scores of
      n non-members is Beta(j, n + 1 - j), whatever the scores' law. The interval goes from Clopper and Pearson's lower
      bound at a threshold whose false positive rate lies below f to the upper bound at one where it lies above, each
      with a quarter of the error. The metric itself interpolates, which breaks ties at random.

    Args:
      member_scores: [repetitions, members]; higher is likelier a member.
      nonmember_scores: [repetitions, non-members].
      threshold: a candidate with a higher score is called a member; None: the median of all scores of a repetition.
      confidence: of the intervals, in (0, 1).
      description: the attack's.
      access: the attack's.
      paper: the attack's.
      is_membership: the attack's.

    Raises:
      ValueError: on other shapes, no scores, or scores that are not finite.
    """
    members, nonmembers = np.asarray(member_scores, np.float64), np.asarray(nonmember_scores, np.float64)
    for name, scores in (("member_scores", members), ("nonmember_scores", nonmembers)):
        if scores.ndim != 2 or not scores.size or len(scores) != len(members) or not np.isfinite(scores).all():
            raise ValueError(
                f"`{name}` should hold finite numbers of shape [repetitions, candidates], with as many repetitions for "
                f"non-members as for members; got shape {list(scores.shape)} beside {list(members.shape)}."
            )
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` should lie strictly between 0 and 1; got {confidence!r}.")
    repetitions, num_members, num_nonmembers = len(members), members.shape[1], nonmembers.shape[1]

    both = np.concatenate([members, nonmembers], axis=1)
    thresholds = np.median(both, axis=1, keepdims=True) if threshold is None else threshold
    called = (np.heaviside(scores - thresholds, 0.5).mean(axis=1) for scores in (members, nonmembers))
    true_positive_rates, false_positive_rates = called
    accuracies = (true_positive_rates + 1 - false_positive_rates) / 2
    truth = np.repeat([1, 0], [num_members, num_nonmembers])
    aucs = np.array([sklearn.metrics.roc_auc_score(truth, scores) for scores in both])
    tprs, lows, highs = _tprs(members, nonmembers, _ROC_FPRS, confidence)
    one, tenth = (int(np.argmin(np.abs(_ROC_FPRS - rate))) for rate in (0.01, 0.001))

    smaller = min(num_members, num_nonmembers)
    accuracy, auc = float(np.mean(accuracies)), float(np.mean(aucs))
    low, high = _interval(accuracies, 2 * smaller, confidence)
    return AttackResult(
        accuracy=accuracy,
        accuracy_interval=(low, high),
        privacy_loss=2 * accuracy - 1,
        privacy_loss_interval=(2 * low - 1, 2 * high - 1),
        auc=auc,
        auc_interval=_interval(aucs, smaller, confidence),
        tpr_at_1_percent_fpr=float(tprs[one]),
        tpr_at_1_percent_fpr_interval=(float(lows[one]), float(highs[one])),
        tpr_at_01_percent_fpr=float(tprs[tenth]),
        tpr_at_01_percent_fpr_interval=(float(lows[tenth]), float(highs[tenth])),
        roc=Roc(*(tuple(np.round(values, 6).tolist()) for values in (_ROC_FPRS, tprs, lows, highs))),
        repetitions=repetitions,
        num_members=num_members,
        num_nonmembers=num_nonmembers,
        description=description,
        access=access,
        paper=paper,
        is_membership=is_membership,
        accuracies=tuple(accuracies.tolist()),
    )


def strongest_attack(results: Mapping[str, AttackResult], confidence: float = 0.95) -> StrongestAttack | None:
    """The membership attack with the highest privacy loss, and an interval that allows for having picked it.

    The highest of k metrics is high by chance too. Each of the k intervals is therefore computed with a k-th of the
    error (Bonferroni), so that with `confidence` all of them hold at once, and thus the one that was picked. Attacks on
    the same candidates are dependent, which Bonferroni's correction allows.

    Args:
      results: of any attacks.
      confidence: of the corrected interval.

    Returns:
      None if no membership attack is among the results.
    """
    asked = {name: result for name, result in results.items() if result.is_membership}
    if not asked:
        return None
    name = max(asked, key=lambda name: asked[name].privacy_loss)
    low, high = asked[name].accuracy_interval_at(1 - (1 - confidence) / len(asked))
    return StrongestAttack(
        name=name,
        privacy_loss=asked[name].privacy_loss,
        interval=(2 * low - 1, 2 * high - 1),
        confidence=confidence,
        looked_at=len(asked),
        correction=f"Bonferroni: simultaneous intervals for all {len(asked)} membership attacks",
    )


def clopper_pearson(
    successes: npt.ArrayLike, trials: npt.ArrayLike, error: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Clopper and Pearson's bounds, each of which fails with probability `error` at most; halves count as halves."""
    counted, total = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    with np.errstate(invalid="ignore"):
        low = np.where(counted > 0, scipy.stats.beta.ppf(error, counted, total - counted + 1), 0.0)
        high = np.where(counted < total, scipy.stats.beta.ppf(1 - error, counted + 1, total - counted), 1.0)
    return low, high


def _interval(metrics: npt.NDArray[np.float64], num_answers: int, confidence: float) -> Interval:
    """The hull of Student's t over repetitions and Clopper and Pearson's of `num_answers`, within [0, 1]."""
    mean = float(np.mean(metrics))
    bounds = clopper_pearson(mean * num_answers, num_answers, (1 - confidence) / 2)
    low, high = min(mean, float(bounds[0])), max(mean, float(bounds[1]))  # rounding aside, the mean lies between them
    error = float(_student(metrics, confidence))
    return max(min(low, mean - error), 0.0), min(max(high, mean + error), 1.0)


def _student(metrics: npt.NDArray[np.float64], confidence: float) -> npt.NDArray[np.float64]:
    """Half the width of Student's interval over repetitions (the first axis); 0 for one repetition."""
    if len(metrics) < 2:
        return np.zeros(metrics.shape[1:])
    t = float(scipy.stats.t.ppf((1 + confidence) / 2, len(metrics) - 1))
    return t * np.std(metrics, axis=0, ddof=1) / math.sqrt(len(metrics))


def _tprs(
    members: npt.NDArray[np.float64],
    nonmembers: npt.NDArray[np.float64],
    fprs: npt.NDArray[np.float64],
    confidence: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """True positive rates at false positive rates, and their bounds; see `compare_scores`."""
    num_members, num_nonmembers = members.shape[1], nonmembers.shape[1]
    error = (1 - confidence) / 4
    ranks = np.arange(1, num_nonmembers + 1)
    # With probability 1 - error, the false positive rate above the j-th largest score lies below / above these.
    at_most = scipy.stats.beta.ppf(1 - error, ranks, num_nonmembers + 1 - ranks)
    at_least = scipy.stats.beta.ppf(error, ranks, num_nonmembers + 1 - ranks)
    below = np.searchsorted(at_most, fprs, side="right")  # how many ranks keep below each rate
    above = np.searchsorted(at_least, fprs, side="left")  # the first rank that reaches it
    estimates, lows, highs = [], [], []
    for own, others in zip(members, nonmembers, strict=True):
        truth = np.repeat([1, 0], [num_members, num_nonmembers])
        curve = sklearn.metrics.roc_curve(truth, np.concatenate([own, others]), drop_intermediate=False)
        estimates.append(np.interp(fprs, curve[0], curve[1]))
        descending, ascending = np.sort(others)[::-1], np.sort(own)
        strict = num_members - np.searchsorted(ascending, descending, side="right")  # members above each threshold
        loose = num_members - np.searchsorted(ascending, descending, side="left")  # or at it
        low = clopper_pearson(strict, num_members, error)[0]
        high = clopper_pearson(loose, num_members, error)[1]
        lows.append(np.where(below > 0, low[np.maximum(below, 1) - 1], 0.0))
        highs.append(np.where(above < num_nonmembers, high[np.minimum(above, num_nonmembers - 1)], 1.0))
    estimate = np.mean(estimates, axis=0)
    spread = _student(np.array(estimates), confidence)
    low = np.minimum.reduce([np.mean(lows, axis=0), estimate - spread, estimate])
    high = np.maximum.reduce([np.mean(highs, axis=0), estimate + spread, estimate])
    return estimate, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
