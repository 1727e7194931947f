"""Results: from scores of members and non-members to accuracy, privacy loss and AUC, each with an interval.

    results = run_attacks(release, splits.train, splits.holdout, seed=0)
    results["classifier_holdout"].privacy_loss, results["classifier_holdout"].privacy_loss_interval
    privacy_loss_cap(epsilon=3.0, delta=1e-5)

All figures are computed from private rows without noise: they are internal and not covered by any epsilon.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
import sklearn.metrics

from tfdpgen.attacks.base import ATTACKS, Attack, ReleaseLike, get
from tfdpgen.data import Dataset

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """What one attack achieved; internal.

    Attributes:
      accuracy: P, the share of right answers among as many members as non-members; a score at the threshold counts
        half.
      privacy_loss: (P - 0.5) / 0.5 in [-1, 1], which is the true positive rate minus the false positive rate.
      auc: the probability that a random member scores higher than a random non-member; ties count half.
      accuracy_interval, privacy_loss_interval, auc_interval: see `compare_scores`.
      repetitions: how often the attack was run, each time with fresh draws.
      num_members, num_nonmembers: candidates in one repetition.
      description: what was asked.
      is_membership: whether `privacy_loss_cap` has anything to do with it.
    """

    accuracy: float
    accuracy_interval: Interval
    privacy_loss: float
    privacy_loss_interval: Interval
    auc: float
    auc_interval: Interval
    repetitions: int
    num_members: int
    num_nonmembers: int
    description: str
    is_membership: bool

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def compare_scores(
    member_scores: npt.ArrayLike,
    nonmember_scores: npt.ArrayLike,
    threshold: float,
    confidence: float = 0.95,
    *,
    description: str = "",
    is_membership: bool = True,
) -> AttackResult:
    """Compares the scores of members with those of non-members.

    Each interval holds two: Student's t over the repetitions' figures, which covers the chance in draws and training,
    and the Wilson score interval of a single repetition's answers, which covers the chance in who was asked. The second
    keeps an interval from vanishing where all repetitions agree (5 times 100 of 100 right is no proof of certainty) and
    stands alone where there is one repetition. It counts rows once, since repetitions ask about the same people, and
    is wider than need be for AUC, whose variance is at most AUC (1 - AUC) / min(members, non-members).

    Args:
      member_scores: [repetitions, members]; higher is likelier a member.
      nonmember_scores: [repetitions, non-members].
      threshold: a candidate with a higher score is called a member.
      confidence: of the intervals, in (0, 1).
      description: carried over.
      is_membership: carried over.

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

    called = (_called_member(scores, threshold).mean(axis=1) for scores in (members, nonmembers))
    true_positive_rates, false_positive_rates = called
    accuracies = (true_positive_rates + 1 - false_positive_rates) / 2
    truth = np.repeat([1, 0], [num_members, num_nonmembers])
    both = np.concatenate([members, nonmembers], axis=1)
    aucs = np.array([sklearn.metrics.roc_auc_score(truth, scores) for scores in both])

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
        repetitions=repetitions,
        num_members=num_members,
        num_nonmembers=num_nonmembers,
        description=description,
        is_membership=is_membership,
    )


def run_attacks(
    release: ReleaseLike,
    members: Dataset,
    nonmembers: Dataset,
    *,
    repetitions: int = 5,
    num_candidates: int | None = None,
    seed: int,
    names: Sequence[str] | None = None,
    verbose: int = 0,
) -> dict[str, AttackResult]:
    """Runs attacks on a release and compares what they score.

    Each repetition draws k members and k others without replacement, shuffles them, and lets each attack score them
    from the release alone. The others are rows of `nonmembers` if the attack asks for membership, and else uniform
    noise images. Attacks that share a scoring function are trained once a repetition.

    Args:
      release: anything with `spec` and `sample(labels, seed)`.
      members: rows that the release was trained on.
      nonmembers: rows of the same source that it was not trained on.
      repetitions: at least 1.
      num_candidates: k; as many as both data sets have if None or if there are fewer.
      seed: for all draws and all training.
      names: which attacks; all registered ones if None.
      verbose: 1 prints a line for each repetition.

    Returns:
      One result for each name.

    Raises:
      ValueError: for unknown names, numbers below 1, empty data sets or differing image shapes.
    """
    attacks = [get(name) for name in (ATTACKS if names is None else names)]
    k = min(len(members), len(nonmembers), *([] if num_candidates is None else [num_candidates]))
    if repetitions < 1 or k < 1:
        raise ValueError(
            "`repetitions`, `num_candidates` and the rows of `members` and `nonmembers` should be at least 1; "
            f"got {repetitions}, {num_candidates}, {len(members)} and {len(nonmembers)}."
        )
    scores: dict[str, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]] = {a.name: [] for a in attacks}
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        asked, _ = members.rows(rng.choice(len(members), k, replace=False))
        others = {
            True: nonmembers.rows(rng.choice(len(nonmembers), k, replace=False))[0],
            False: rng.integers(256, size=asked.shape, dtype=np.uint8),
        }
        for group in _by_score_fn(attacks):
            kinds = sorted({attack.is_membership for attack in group})
            candidates = np.concatenate([asked, *(others[kind] for kind in kinds)])
            order = rng.permutation(len(candidates))  # so that no position tells who is a member
            shuffled = group[0].score(release, candidates[order], rng)
            member_scores, *other_scores = np.split(shuffled[np.argsort(order)], len(kinds) + 1)
            for attack in group:
                scores[attack.name].append((member_scores, other_scores[kinds.index(attack.is_membership)]))
        if verbose:
            print(f"attacks: repetition {repetition + 1} of {repetitions} done")
    return {
        attack.name: compare_scores(
            [pair[0] for pair in scores[attack.name]],
            [pair[1] for pair in scores[attack.name]],
            attack.decision_threshold,
            description=attack.description,
            is_membership=attack.is_membership,
        )
        for attack in attacks
    }


def privacy_loss_cap(epsilon: float, delta: float) -> float:
    """The largest privacy loss that any membership attack can have: (e^epsilon - 1 + 2 delta) / (e^epsilon + 1).

    Let M be (epsilon, delta)-differentially private and D, D' neighbours. A test that calls "member" has true positive
    rate t = Pr[test(M(D))] and false positive rate f = Pr[test(M(D'))]. The definition, applied to the test from D to
    D' and to its complement from D' to D, says (Kairouz, Oh and Viswanath 2015, arXiv 1311.0776, theorem 2.1)

        t <= e^epsilon f + delta      and      1 - f <= e^epsilon (1 - t) + delta.

    Their sum, with a = t - f, is 1 + a <= e^epsilon (1 - a) + 2 delta, that is a <= (e^epsilon - 1 + 2 delta) /
    (e^epsilon + 1). With even odds of membership, accuracy is P = (t + 1 - f) / 2, so that the privacy loss
    (P - 0.5) / 0.5 = 2 P - 1 = t - f, which is what Yeom et al. 2018 (arXiv 1709.01604) call membership advantage;
    Humphries et al. 2023 (arXiv 2010.12112) give the same bound.

    For which question it holds: is this single row in the data or not, all other rows equal, D and D' neighbours in the
    relation that epsilon was accounted for. With add-or-remove, that is the row against its absence. Exchanging the
    row for another is a removal and an addition: there the cap is that of (2 epsilon, (1 + e^epsilon) delta). It bounds
    expectations; a figure measured on few rows may exceed it by chance. It says nothing about telling private rows from
    noise (`is_membership` False), which needs no row's secret.

    Args:
      epsilon: at least 0; infinity gives 1.
      delta: in [0, 1].

    Returns:
      A number in [0, 1].

    Raises:
      ValueError: if either lies outside its range.
    """
    if not epsilon >= 0:
        raise ValueError(f"`epsilon` should be at least 0; got {epsilon!r}.")
    if not 0 <= delta <= 1:
        raise ValueError(f"`delta` should lie in [0, 1]; got {delta!r}.")
    decay = math.exp(-epsilon)  # numerator and denominator divided by e^epsilon, which would overflow
    return min(1.0, (1 - decay + 2 * delta * decay) / (1 + decay))


def _by_score_fn(attacks: Sequence[Attack]) -> list[list[Attack]]:
    """Attacks grouped by the function that scores them, in order of appearance."""
    groups: list[list[Attack]] = []
    for attack in attacks:
        group = next((group for group in groups if group[0].score_fn == attack.score_fn), None)
        groups.append([attack]) if group is None else group.append(attack)
    return groups


def _called_member(scores: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
    """1 above the threshold, 0 below, a half at it."""
    return np.heaviside(scores - threshold, 0.5)


def _interval(figures: npt.NDArray[np.float64], num_answers: int, confidence: float) -> Interval:
    """The hull of Student's t over repetitions and the Wilson score interval of `num_answers`, within [0, 1]."""
    mean = float(np.mean(figures))
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    centre = (mean + z**2 / (2 * num_answers)) / (1 + z**2 / num_answers)
    half = z / (1 + z**2 / num_answers) * math.sqrt(mean * (1 - mean) / num_answers + (z / (2 * num_answers)) ** 2)
    low, high = min(mean, centre - half), max(mean, centre + half)  # the mean lies between them but for rounding
    if len(figures) > 1:
        t = float(scipy.stats.t.ppf((1 + confidence) / 2, len(figures) - 1))
        error = t * float(np.std(figures, ddof=1)) / math.sqrt(len(figures))
        low, high = min(low, mean - error), max(high, mean + error)
    return max(low, 0.0), min(high, 1.0)
