"""Accuracies that may be published: noised, paid for by the test examples, and written down before they are computed.

    published = publish_accuracies({"p2": classifier}, private_test, PrivacyBudget(0.5, 1e-5), ledger=ledger)
    published.accuracies["p2"], published.intervals["p2"], published.text

Test examples are private too. Of n of them, the number that a classifier answers right changes by at most 1 when one
example is added, removed or replaced, **if** the classifier does not depend on that example. So a count with Gaussian
noise over n, which is declared public, is differentially private towards the test examples. Towards the training
examples it costs nothing more, if the classifier has seen generated examples alone: it is post-processing of a release
that they have paid for.

That is why p2 may be published, and the same metric of any other classifier of generated examples; and p1, p3 and p1 -
p2 may not: their classifier was trained on private examples without differential privacy, and there is no bound on what
one training example may change in it. p4 touches no private example and needs no noise.

Training examples and test examples are disjoint, so the two promises hold side by side (parallel composition, McSherry
2009): epsilon of the release to whoever has a training example, epsilon of this publication to whoever has a test
example. Who has an example in both is promised the sum of the two. Repeated publications on the same test examples add
up too: together they cost at most the sum of their epsilons and of their deltas, of which a ledger keeps account.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats
from absl import logging

from tfdpgen.choices import UNPUBLISHABLE, check_publishable
from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation.classifiers import Classifier
from tfdpgen.evaluation.intervals import CONFIDENCE, Interval, accuracy_interval
from tfdpgen.privacy import Ledger, LedgerError, NoiseSource, PrivacyBudget, epsilon_of
from tfdpgen.privacy.mechanisms.noisy_counts import NoisyCounts


@dataclasses.dataclass(frozen=True)
class PublishedAccuracies:
    """What may be published about accuracy, with its account.

    Attributes:
      accuracies: by name; the noisy share of right answers, cut off at 0 and 1.
      intervals: by name; cover the accuracy on further examples with `confidence` at least, noise and choice of
        examples included.
      confidence: of the intervals, each by itself.
      num_examples: test examples, public by declaration.
      noise_stddev: standard deviation of the noise of each accuracy.
      noise_multiplier: standard deviation of the noise over the sensitivity of all counts together.
      epsilon: what all of them cost a test example together, at `delta`, by PLD; adding, removing or replacing one.
      delta: the probability with which epsilon may be exceeded.
      noise_source: "operating system", or "seeded" where they protect nobody.
    """

    accuracies: Mapping[str, float]
    intervals: Mapping[str, Interval]
    confidence: float
    num_examples: int
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
            f"{names} on {self.num_examples} private test examples, with Gaussian noise of standard deviation "
            f"{self.noise_stddev:.4g}: ({self.epsilon:.4g}, {self.delta:g})-differential privacy for each test "
            "example, whether it is added, removed or replaced; the number of test examples is public by declaration. "
            "Training examples pay nothing for it, since the classifiers have seen generated examples alone. Training "
            "and test examples are disjoint: who has one example is promised the epsilon of its split, and who has an "
            "example in each the sum of both. Repeated publications on the same test examples add "
            "up, to the sum of their epsilons and of their deltas at most; this statement covers one of them."
        )

    def to_dict(self) -> dict[str, Any]:
        """{metrics: {name: {value, interval}}, confidence, num_examples, ..., statement}, JSON-ready."""
        metrics = {
            name: {"value": value, "interval": list(self.intervals[name])} for name, value in self.accuracies.items()
        }
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("accuracies", "intervals")
        }
        return {"metrics": metrics, **facts, "statement": self.text}


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
    """Tests classifiers of generated examples on private examples and returns noisy accuracies.

    Args:
      classifiers: by the name under which each accuracy is published; all trained on generated examples.
      private_test: all examples whose answers count. No classifier, and nothing that chose one, may depend on them.
      budget: what all accuracies together may cost a test example; delta smaller than 1 / number of test examples.
      ledger: where the cost is reserved, for these test examples, before the first answer is asked for.
      limit: the most that all reservations on these examples may cost; needs a ledger, whose own totals hold besides.
      noise: None for the operating system's.
      confidence: of the intervals.

    Raises:
      ValueError: for metrics that cannot be published, a classifier that was trained on private examples, a delta that
        is too large, or a limit without a ledger; nothing is spent then.
      BudgetExceededError: if `limit` would be exceeded; nothing is spent then.
    """
    check_publishable(list(classifiers))
    for name, classifier in classifiers.items():
        if classifier.trained_on != "generated":
            raise ValueError(
                f"`classifiers` cannot hold a {classifier.name} of private examples as {name}: {UNPUBLISHABLE['p1']}."
            )
    if limit is not None and ledger is None:
        raise ValueError("`limit` needs a `ledger` that knows what was spent before.")
    budget.check_num_examples(len(private_test))
    mechanism = NoisyCounts(len(classifiers)).with_noise(budget.gaussian_noise_multiplier)
    noise = NoiseSource() if noise is None else noise
    if ledger is not None:
        purpose = f"publish {', '.join(classifiers)}"
        reserved = ledger.reserve(private_test, mechanism.event, delta=budget.delta, purpose=purpose, limit=limit)
    right = [classifier.right(private_test) for classifier in classifiers.values()]
    counts = mechanism.release(np.stack(right), noise)
    if ledger is not None:
        try:
            ledger.confirm(reserved)
        except LedgerError as error:  # what was bought is not lost for that
            logging.warning("The ledger was not told that this has run, and counts it just the same. %s", error)
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
        num_examples=len(private_test),
        noise_stddev=mechanism.stddev / len(private_test),
        noise_multiplier=budget.gaussian_noise_multiplier,
        epsilon=epsilon_of(mechanism.event, budget.delta),
        delta=budget.delta,
        noise_source=noise.description,
    )


def _interval(count: float, examples: int, stddev: float, confidence: float) -> Interval:
    """Covers the accuracy on further examples: half of the doubt is spent on the noise, half on who was tested.

    The exact count lies within the noise's quantiles of the noisy one, and the accuracy within the binomial intervals
    of the two ends, each but for half of 1 - confidence (union bound).
    """
    half = (1 + confidence) / 2
    reach = float(scipy.stats.norm.ppf((1 + half) / 2)) * stddev
    low, high = (int(np.clip(end, 0, examples)) for end in (np.floor(count - reach), np.ceil(count + reach)))
    return accuracy_interval(low, examples, half)[0], accuracy_interval(high, examples, half)[1]
