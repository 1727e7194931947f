"""PATE-GAN: teachers on disjoint shards vote where their examples lie among fakes; a generator learns from the votes.

    release = train("pate_gan", dataset, PrivacyBudget(epsilon=10.0, delta=1e-5))

Source: Jordon, Yoon & van der Schaar 2019, "PATE-GAN: generating synthetic data with differential privacy guarantees",
ICLR; Long et al. 2021, "G-PATE", arXiv 1906.09338, for votes on random projections. Unit of privacy: one example.
Mechanism: `Votes`, whose file derives its sensitivity and its event; the epsilon is data-independent. Released are the
generator and whatever is sampled from it; a teacher never is.

In a round, each class is asked about random directions in a space of DCT coefficients. Along each, the fakes of that
class set the thresholds: their quantiles. Every teacher votes for the interval in which an example of its own lies.
Were fakes like the examples, all intervals would get as many votes. The **student** is what was heard in all rounds:
for each direction, the quantiles that the noisy counts say the examples have. The generator is trained against it: the
fakes of a batch, sorted along a direction, should lie at these quantiles (sliced Wasserstein distance, Bonneel et al.
2015; Deshpande et al. 2018; under differential privacy, Rakotomamonjy & Ralaivola 2021, arXiv 2107.01848). Quantiles
that were paid for once are used as often as one likes.

Where this departs from the papers, and why:

- Teachers are no discriminators. Asked whether a fake is real, all say no from the start, and the student learns
  nothing; asked which fakes are better, they send the generator to one image of a class; the signs of their gradients
  drown in noise (docs/methods.md). Where an example lies along a direction says, in one vote, how fakes should move.
- So teachers need no training, and shards need few examples: the more teachers, the less the noise matters.
- Every shard is of one class, and its teacher is asked about that class alone: an example then moves a tenth of the
  votes of ten classes.
- All teachers vote in every round. There is no threshold of agreement, since it has to be paid for.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.dct import DCT
from tfdpgen.methods.method import Fitted, register
from tfdpgen.networks.gan import build_feature_generator
from tfdpgen.networks.generator_training import GeneratorTraining
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.mechanisms.votes import Votes
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession

keras = tf.keras

_VOTES = "votes"
_DECAY = 0.999
_FAKES = 64  # of a class, in a batch; as many quantiles are kept of each direction
_CLASSES = 10  # in a batch
_DIRECTIONS = 200  # in a step of the generator
_SMALLEST_VARIANCE = 1e-6  # of quantiles, by which squared distances are divided


@register
@dataclasses.dataclass(frozen=True)
class PATEGAN:
    """PATE-GAN on projections; see the top of this file.

    Attributes:
      latent_dim: size of the generator's latent vector.
      hidden_units: of each of the generator's layers.
      num_coefficients: of the DCT, in whose space directions are.
      num_teachers: of each class. The more, the more votes, and the fewer examples has each.
      rounds: in which teachers vote. Each costs privacy.
      queries: about each class in a round. More are answered with more noise.
      options: intervals of a query.
      steps: of the generator after each round.
      learning_rate: of Adam.

    Raises:
      ValueError: if a setting is not greater than 0, or `options` is less than 4.
    """

    num_teachers: int
    latent_dim: int = 64
    hidden_units: int = 256
    num_coefficients: int = 150
    rounds: int = 200
    queries: int = 20
    options: int = 16
    steps: int = 20
    learning_rate: float = 1e-3
    name: ClassVar[str] = "pate_gan"
    priors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"`{field.name}` should be greater than 0; got {getattr(self, field.name)!r}.")
        if self.options < 4:
            raise ValueError(f"`options` should be at least 4; got {self.options!r}.")

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        of_a_class = max(8, num_examples // spec.num_classes)
        queries = min(20, max(1, of_a_class // 150))
        options = 1 + math.ceil(math.log2(of_a_class))  # Sturges' rule for histograms
        coefficients = min(150, spec.image_shape[0] * spec.image_shape[1])
        return cls(
            num_teachers=of_a_class,
            hidden_units=4 * coefficients,
            num_coefficients=coefficients,
            queries=queries,
            options=options,
            steps=5 + queries,
        )

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        votes = Votes(spec.num_classes, self.num_teachers, self.rounds, self.queries, self.options)
        return PrivacyPlan({_VOTES: votes}, num_examples)

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        spec = session.spec
        space = DCT(spec.image_shape, self.num_coefficients)
        poll = session.poll(_VOTES, lambda images, labels: space.transform(images))
        scales = np.full(space.size, space.radius / math.sqrt(space.size), np.float32)
        features = build_feature_generator(scales, spec.num_classes, self.latent_dim, self.hidden_units, seed)
        generator = keras.Model(features.inputs, space.inverse_transform(features.output), name="generator")
        num_classes = min(spec.num_classes, _CLASSES)
        training = GeneratorTraining(
            generator,
            spec.num_classes,
            num_fakes=num_classes * _FAKES,
            learning_rate=self.learning_rate,
            decay=_DECAY,
            seed=seed,
        )
        student = _Student(spec.num_classes, self.rounds, self.queries, space.size)
        asked: list[Any] = []

        def drawn(classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return training.draw()[0], tf.repeat(classes, _FAKES)

        def features_of(images: tf.Tensor) -> tf.Tensor:
            return tf.reshape(space.transform(images), [num_classes, _FAKES, space.size])

        @tf.function
        def fakes(classes: tf.Tensor) -> tf.Tensor:
            return features_of(training.generator(drawn(classes), training=True))

        @tf.function
        def generator_step(classes: tf.Tensor, chosen: tf.Tensor) -> None:
            training.step(lambda images, _: student.distance(features_of(images), classes, chosen), drawn(classes))

        def ask(round_number: int) -> tuple[Any, Any]:
            rng = np.random.default_rng([seed, round_number, 0])
            directions = rng.normal(size=(spec.num_classes, self.queries, space.size))
            directions /= np.linalg.norm(directions, axis=2, keepdims=True)
            if round_number:
                some = np.arange(-(-spec.num_classes // num_classes) * num_classes) % spec.num_classes
                batches = [fakes(tf.constant(classes)).numpy() for classes in some.reshape(-1, num_classes)]
                known = np.concatenate(batches)[: spec.num_classes]
            else:
                known = scales * rng.normal(size=(spec.num_classes, _FAKES, space.size))
            shares = np.arange(1, self.options) / self.options
            asked[:] = directions, np.quantile(directions @ known.transpose(0, 2, 1), shares, axis=2).transpose(1, 2, 0)
            return asked[0], asked[1]

        def answer(round_number: int, counts: npt.NDArray[np.float64]) -> None:
            rng = np.random.default_rng([seed, round_number, 1])
            directions, thresholds = asked
            student.listen(directions, thresholds, counts)
            for _ in range(self.steps):
                classes = rng.permutation(spec.num_classes)[:num_classes]
                generator_step(tf.constant(classes), tf.constant(rng.integers(student.heard, size=_DIRECTIONS)))

        poll.run(ask, answer, state={**training.state, "student": student}, verbose=verbose)
        return Fitted(training.finished(), {})


class _Student(tf.Module):
    """For each direction that teachers were asked about, at which quantiles the examples of a class are said to lie.

    Args:
      num_classes: K, of labels.
      rounds, queries: in all rounds together rounds * queries directions of each class.
      num_features: d, of a direction.
    """

    def __init__(self, num_classes: int, rounds: int, queries: int, num_features: int) -> None:
        super().__init__()
        self.queries = queries
        self.directions = tf.Variable(tf.zeros([num_classes, rounds * queries, num_features]), trainable=False)
        self.quantiles = tf.Variable(tf.zeros([num_classes, rounds * queries, _FAKES]), trainable=False)
        self.rounds = tf.Variable(tf.constant(0), trainable=False)

    @property
    def heard(self) -> int:
        """How many directions of each class are known."""
        return int(self.rounds) * self.queries

    def listen(
        self,
        directions: npt.NDArray[np.floating],
        thresholds: npt.NDArray[np.floating],
        counts: npt.NDArray[np.floating],
    ) -> None:
        """Takes in what one round gave.

        Args:
          directions: [K, queries, d].
          thresholds: [K, queries, options - 1].
          counts: noisy ones, [K, queries, options].
        """
        counts = np.maximum(counts, 0) + 1e-9
        shares = np.cumsum(counts / counts.sum(axis=2, keepdims=True), axis=2)
        shares = np.concatenate([np.zeros_like(shares[..., :1]), shares], axis=2)
        quarter = counts.shape[2] // 4  # as far as from the first threshold to this one, the outer intervals reach
        first, last = thresholds[..., :1], thresholds[..., -1:]
        below = 2 * first - thresholds[..., quarter, None]
        above = 2 * last - thresholds[..., -1 - quarter, None]
        knots = np.concatenate([below, thresholds, above], axis=2)
        wanted = (np.arange(_FAKES) + 0.5) / _FAKES
        quantiles = [
            [np.interp(wanted, *curve) for curve in zip(*of_class, strict=True)]
            for of_class in zip(shares, knots, strict=True)
        ]
        place = slice(self.heard, self.heard + self.queries)
        self.directions[:, place].assign(directions.astype(np.float32))
        self.quantiles[:, place].assign(np.asarray(quantiles, np.float32))
        self.rounds.assign_add(1)

    def distance(self, features: tf.Tensor, classes: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Squared Wasserstein distance of fakes from the quantiles, in units of their spread; mean over directions.

        Args:
          features: of the fakes, float32 [c, _FAKES, d].
          classes: theirs, int64 [c].
          chosen: which of their directions, int64 [q].
        """
        directions = tf.gather(tf.gather(self.directions, classes), chosen, axis=1)
        lie = tf.sort(tf.matmul(directions, features, transpose_b=True), axis=2)
        should = tf.gather(tf.gather(self.quantiles, classes), chosen, axis=1)
        spread = tf.maximum(tf.math.reduce_variance(should, axis=2, keepdims=True), _SMALLEST_VARIANCE)
        return tf.reduce_mean((lie - should) ** 2 / spread)
