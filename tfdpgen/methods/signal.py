"""How much of a class the noise leaves: a signal-to-noise ratio from public facts, and what would raise it.

    ratio = class_signal(num_examples=1077, num_classes=10, num_features=49, noise_multiplier=1.5)
    advise(spec, 1077, PrivacyBudget(0.1, 1e-5))                  # epsilon, classes, image shapes that would do

**The ratio.** It is of the data and the budget, whatever the method: a class's mean is the cheapest thing to learn, and
where noise swamps it, no method can work. `ClassMeans` with the whole budget adds up vectors v of d features, the
lowest frequencies of an image, clipped to ||v|| <= 1. Of n_c examples of one class the sum's norm is at most n_c, the
signal. Each of the d entries gets noise of standard deviation s = z sqrt(1/4 + 1 + 1), where z is the noise multiplier
that the budget buys one Gaussian mechanism and the root is the sensitivity of count, sum and scale released together.
The norm of the noise is s sqrt(d) in root mean square. So

    ratio = n_c / (s sqrt(d)),    n_c = num_examples / num_classes.

It is an upper bound: real features are shorter than the clip, what tells classes apart is shorter still, and methods
leave a part of the budget for more than means. Below 1 the noise of a class's mean is longer than any mean can be. It
needs no look at an example: n_c is what a class has on average, and a rare class has less.

**Hopeless** is what lies below `HOPELESS`. docs/preflight.md has the measurements behind it.
"""

from __future__ import annotations

import dataclasses
import math

import dp_accounting

from tfdpgen.data.dataset import DataSpec
from tfdpgen.privacy.accounting import epsilon_of
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans

HOPELESS = 0.6
_LEAST_SIDE = 8  # pixels of an image that shows something
_COEFFICIENTS = 49  # lowest frequencies of each channel; what lies above them is little of an image


@dataclasses.dataclass(frozen=True)
class Advice:
    """What would bring the ratio to `HOPELESS`, each alone; None where it alone cannot.

    Attributes:
      epsilon: the least, at the same delta.
      num_classes: the most, of the same examples.
      image_shape: the largest of the same proportions, (height, width, channels).
    """

    epsilon: float | None
    num_classes: int | None
    image_shape: tuple[int, int, int] | None


def class_signal(num_examples: int, num_classes: int, num_features: int, noise_multiplier: float) -> float:
    """The ratio that the top of this file derives, of a class with its share of the examples.

    Args:
      num_examples: private examples of all classes.
      num_classes: declared classes.
      num_features: d, that are released of each class.
      noise_multiplier: z, of the one Gaussian mechanism that the budget buys.
    """
    means = ClassMeans(num_classes, num_features, radius=1.0, noise_multiplier=noise_multiplier)
    return num_examples / num_classes / (means.stddev * math.sqrt(num_features))


def signal_of(spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> float:
    """The ratio on such data with such a budget."""
    features = num_features(spec)
    return class_signal(num_examples, spec.num_classes, features, budget.gaussian_noise_multiplier)


def advise(spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> Advice:
    """What would no longer be hopeless; the other facts stay as they are."""
    features = num_features(spec)
    # The ratio is proportional to 1 / (num_classes * z * sqrt(d)), so that each is found from the others.
    enough = class_signal(num_examples, spec.num_classes, features, 1.0) / HOPELESS
    epsilon = epsilon_of(dp_accounting.GaussianDpEvent(enough), budget.delta)
    ratio = class_signal(num_examples, spec.num_classes, features, budget.gaussian_noise_multiplier)
    classes = math.floor(spec.num_classes * ratio / HOPELESS)
    return Advice(
        epsilon if math.isfinite(epsilon) else None,
        min(classes, spec.num_classes) if classes >= 2 else None,
        _largest_shape(spec, features * (ratio / HOPELESS) ** 2),
    )


def num_features(spec: DataSpec) -> int:
    """d: how many low frequencies of an image the ratio is about."""
    height, width, channels = spec.image_shape
    return min(_COEFFICIENTS, height * width) * channels


def _largest_shape(spec: DataSpec, most_features: float) -> tuple[int, int, int] | None:
    """The largest shape, in whole divisions of the sides and then in grey, with at most so many features."""
    height, width, channels = spec.image_shape
    for kept in dict.fromkeys((channels, 1)):
        for divisor in range(1, min(height, width) // _LEAST_SIDE + 1):
            shape = (height // divisor, width // divisor, kept)
            if num_features(dataclasses.replace(spec, image_shape=shape)) <= most_features:
                return shape
    return None
