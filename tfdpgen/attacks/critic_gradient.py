"""Gradient: a critic has less to learn from the examples that it was trained on than from others.

Nasr, Shokri and Houmansadr 2019, "Comprehensive privacy analysis of deep learning", arXiv 1812.00910: training drives
the gradients of the loss on its own examples towards 0, and a white-box attacker can compute the gradient of any
example's loss by all weights. Of that paper this takes the norm alone, which needs no known members to train an
attacker with: the smaller it is where the critic is asked to call the candidate real, the likelier the candidate is a
member.

    get("critic_gradient").score(known, candidates, rng)        # known.networks["critic"], as in `logan.py`

The loss is softplus(-s), on average over the scores s that count, which is that of a non-saturating GAN and which any
critic whose scores rise with realism can be asked for. The score is minus the logarithm of the norm. Norms are those
that DP-SGD clips by (`tfdpgen.privacy.clipping`); a critic with a layer that has no rule there costs one backward pass
for each candidate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.critic import scores_that_count
from tfdpgen.data import LabeledDataset
from tfdpgen.privacy.clipping import PerExampleTape, check_network, clipped_gradient_sum, per_example_gradients

_EXAMPLES = 128  # whose gradients are computed at a time
_SMALLEST = 1e-30  # norm: a network whose units are all dead has none


@dataclasses.dataclass(frozen=True, eq=False)
class _GradientNorm:
    """Scorer: minus the logarithm of the norm of the gradient of a real example's loss.

    Attributes:
      critic: a built Keras model.
      is_fast: whether all of its layers have a rule for per-example gradients.
    """

    critic: Any
    is_fast: bool

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n]."""
        parts = [
            np.arange(start, min(start + _EXAMPLES, len(candidates))) for start in range(0, len(candidates), _EXAMPLES)
        ]
        return np.concatenate([self._scores(candidates.take(part)) for part in parts] or [np.zeros(0)])

    def _scores(self, examples: LabeledDataset) -> npt.NDArray[np.float64]:
        """The scores of few examples.

        The gradient of softplus(-s) by s is minus the odds that s is a fake's, which vanish in 32 bits where s is
        large. They are computed relative to the largest among an image's parts, whose logarithm is added in the end.
        """
        tape = PerExampleTape(self.critic) if self.is_fast else tf.GradientTape(persistent=True)
        with tape:
            images = examples.images.astype(np.float32) / 255
            scores = scores_that_count(self.critic, images, examples.labels, examples.spec.num_classes)
            log_odds = tf.stop_gradient(-tf.nn.softplus(scores))
            largest = tf.reduce_max(log_odds, axis=1)
            losses = -tf.reduce_mean(tf.exp(log_odds - largest[:, None]) * scores, axis=1)
        norms = np.asarray(self._norms(tape, losses), np.float64)
        return -np.asarray(largest, np.float64) - np.log(np.maximum(norms, _SMALLEST))

    def _norms(self, tape: Any, losses: tf.Tensor) -> tf.Tensor:
        """Norms [n] of the gradients of each loss by all weights."""
        variables = self.critic.trainable_variables
        if self.is_fast:
            return clipped_gradient_sum(tape, losses, variables, l2_norm_clip=1.0).norms
        gradients = per_example_gradients(tape, losses, variables)
        num_examples = tf.shape(losses)[0]
        return tf.sqrt(
            tf.add_n([tf.reduce_sum(tf.reshape(part, [num_examples, -1]) ** 2, axis=1) for part in gradients])
        )


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Takes the critic, and looks whether its layers have rules; nothing is random."""
    del rng
    critic = known.networks["critic"]
    try:
        check_network(critic)
    except ValueError:  # a layer without a rule: its gradients are taken example by example
        return _GradientNorm(critic, is_fast=False)
    return _GradientNorm(critic, is_fast=True)


CRITIC_GRADIENT = register(
    Attack(
        name="critic_gradient",
        description=(
            "A candidate is the likelier a member the smaller the gradient by which the privately trained critic would "
            "learn to call it real."
        ),
        access="model",
        paper="Nasr, Shokri & Houmansadr 2019, arXiv 1812.00910 (white box; the norm alone), on the loss of a critic",
        is_membership=True,
        prepare_fn=prepare,
        networks=("critic",),
    )
)
