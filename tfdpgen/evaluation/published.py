"""Accuracies that may be published: noised, paid for by the test rows, and written down before they are computed.

    published = publish_accuracies({"p2": classifier}, private_test, PrivacyBudget(0.5, 1e-5), ledger=ledger)
    published.accuracies["p2"], published.intervals["p2"], published.text

Test rows are private too. Of n of them, the number that a classifier answers right changes by at most 1 when one row is
added, removed or replaced, **if** the classifier does not depend on that row. So a count with Gaussian noise over n,
which is declared public, is differentially private towards the test rows. Towards the training rows it costs nothing
more, if the classifier has seen generated rows alone: it is post-processing of a release that they have paid for.

That is why p2 may be published, and the same figure of any other classifier of generated rows; and p1, p3 and p1 - p2
may not: their classifier was trained on private rows without differential privacy, and there is no bound on what one
training row may change in it. p4 touches no private row and needs no noise.

Training rows and test rows are disjoint, so the two promises hold side by side (parallel composition, McSherry 2009):
epsilon of the release to whoever has a training row, epsilon of this publication to whoever has a test row. Who has a
row in both is promised the sum of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from tfdpgen.choices import UNPUBLISHABLE, check_publishable
from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation.classifiers import Classifier
from tfdpgen.evaluation.intervals import CONFIDENCE, Interval, accuracy_interval
from tfdpgen.privacy import Ledger, NoiseSource, PrivacyBudget, dataset_id, epsilon_of
from tfdpgen.privacy.counts import NoisyCounts


@dataclasses.dataclass(frozen=True)
class PublishedAccuracies:
    """What may be published about accuracy, with its account.

    Attributes:
      accuracies: by name; the noisy share of right answers, cut off at 0 and 1.
      intervals: by name; cover the accuracy on further rows with `confidence` at least, noise and choice of rows
        included.
      confidence: of the intervals, each by itself.
      num_rows: test rows, public by declaration.
      noise_stddev: standard deviation of the noise of each accuracy.
      noise_multiplier: standard deviation of the noise over the sensitivity of all counts together.
      epsilon: what all of them cost a test row together, at `delta`, by PLD; adding, removing or replacing one.
      delta: the probability with which epsilon may be exceeded.
      noise_source: "operating system", or "seeded" where they protect nobody.
    """

    accuracies: Mapping[str, float]
    intervals: Mapping[str, Interval]
    confidence: float
    num_rows: int
    noise_stddev: float
    noise_multiplier: float
    epsilon: float
    delta: float
    noise_source: str

    @property
    def text(self) -> str:
        """What is promised, in words."""
        names = ", ".join(self.accuracies)
        return (
            f"{names} on {self.num_rows} private test rows, with Gaussian noise of standard deviation "
            f"{self.noise_stddev:.4g}: ({self.epsilon:.4g}, {self.delta:g})-differential privacy for each test row, "
            "whether it is added, removed or replaced; the number of test rows is public by declaration. Training rows "
            "pay nothing for it, since the classifiers have seen generated rows alone. Training and test rows are "
            "disjoint: who has one row is promised the epsilon of its split, and who has a row in each the sum of both."
        )

    def to_dict(self) -> dict[str, Any]:
        """{figures: {name: {value, interval}}, confidence, num_rows, ..., statement}, JSON-ready."""
        figures = {
            name: {"value": value, "interval": list(self.intervals[name])} for name, value in self.accuracies.items()
        }
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("accuracies", "intervals")
        }
        return {"figures": figures, **facts, "statement": self.text}


def publish_accuracies(
    classifiers: Mapping[str, Classifier],
    private_test: LabeledDataset,
    budget: PrivacyBudget,
    *,
    ledger: Ledger | None = None,
    limit: PrivacyBudget | None = None,
    noise: NoiseSource | None = None,
    confidence: float = CONFIDENCE,
) -> PublishedAccuracies:
    """Tests classifiers of generated rows on private rows and returns noisy accuracies.

    Args:
      classifiers: by the name under which each accuracy is published; all trained on generated rows.
      private_test: all rows whose answers count. No classifier, and nothing that chose one, may depend on them.
      budget: what all accuracies together may cost a test row; delta smaller than 1 / number of test rows.
      ledger: where the cost is reserved, for these test rows, before the first answer is asked for.
      limit: the most that all reservations on these rows may cost; needs a ledger.
      noise: None for the operating system's.
      confidence: of the intervals.

    Raises:
      ValueError: for figures that cannot be published, a classifier that was trained on private rows, a delta that is
        too large, or a limit without a ledger; nothing is spent then.
      BudgetExceededError: if `limit` would be exceeded; nothing is spent then.
    """
    check_publishable(list(classifiers))
    for name, classifier in classifiers.items():
        if classifier.trained_on != "generated":
            raise ValueError(
                f"`classifiers` cannot hold a {classifier.name} of private rows as {name}: {UNPUBLISHABLE['p1']}."
            )
    if limit is not None and ledger is None:
        raise ValueError("`limit` needs a `ledger` that knows what was spent before.")
    budget.check_num_examples(len(private_test))
    mechanism = NoisyCounts.calibrate(budget, len(classifiers))
    noise = NoiseSource() if noise is None else noise
    if ledger is not None:
        purpose = f"publish {', '.join(classifiers)}"
        ledger.reserve(dataset_id(private_test), mechanism.event, delta=budget.delta, purpose=purpose, limit=limit)
    right = [classifier.right(private_test) for classifier in classifiers.values()]
    counts = mechanism.release(np.stack(right), noise)
    del right
    return PublishedAccuracies(
        accuracies={
            name: float(np.clip(count / len(private_test), 0, 1))
            for name, count in zip(classifiers, counts, strict=True)
        },
        intervals={
            name: _interval(count, len(private_test), mechanism.stddev, confidence)
            for name, count in zip(classifiers, counts, strict=True)
        },
        confidence=confidence,
        num_rows=len(private_test),
        noise_stddev=mechanism.stddev / len(private_test),
        noise_multiplier=mechanism.noise_multiplier,
        epsilon=epsilon_of(mechanism.event, budget.delta),
        delta=budget.delta,
        noise_source=noise.description,
    )


def _interval(count: float, rows: int, stddev: float, confidence: float) -> Interval:
    """Covers the accuracy on further rows: half of the doubt is spent on the noise, half on who was tested.

    The exact count lies within the noise's quantiles of the noisy one, and the accuracy within the binomial intervals
    of the two ends, each but for half of 1 - confidence (union bound).
    """
    half = (1 + confidence) / 2
    reach = float(scipy.stats.norm.ppf((1 + half) / 2)) * stddev
    low, high = (int(np.clip(end, 0, rows)) for end in (np.floor(count - reach), np.ceil(count + reach)))
    return accuracy_interval(low, rows, half)[0], accuracy_interval(high, rows, half)[1]
