"""Ensemble: a network for each group of examples, that is trained in secret; noised sums of their answers leave.

    ensemble = session.ensemble("gradients", critic, loss_fn, answer_fn, public=[...], transform=..., learning=...)
    ensemble.run(ask, answer)       # for each step: public tensors to ask about; what the mechanism makes of the sum

Groups are the disjoint shards of a plan for examples (`SanitisedGradient`), or what users have, of a plan for users
(`FederatedAverage`, whose networks start from a public one in every step). In a step those that are sampled each train
their own network for a few steps on examples of their shard and on the public tensors, and answer. Answers are bounded
by the mechanism, added up and noised once. Networks are as private as the examples: they are variables of this object,
which no method gets, and are not part of a backup. A training that goes on after a crash has new ones, which learn
anew; no accounted step is repeated. Teachers of `Votes` have no network, and what they answer is counted by the
mechanism itself; their steps are run here as well.

Within a group anything may happen, since an example may change its network into any other. What must not happen is that
one group reaches another: so each network's weights and moments are loaded into one clone of the model, and put away
again, group by group, examples are drawn by positions within the group, and functions that are passed in are traced,
without state of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import Dataset
from tfdpgen.privacy.backup import StepBackup
from tfdpgen.privacy.isolation import Transform, traced, without_values
from tfdpgen.privacy.mechanisms.base import GroupSum, NetworkSum
from tfdpgen.privacy.noise import ExampleRandomness, NoiseSource
from tfdpgen.privacy.remote import SumOf
from tfdpgen.privacy.trainer import features_of


class GroupBatch(Protocol):
    """What a loss function gets; its tensors are private and symbolic, but for `public`.

    Attributes:
      features: float32 [b, d], what the transform gives for examples of one group, drawn with replacement.
      labels: int64 [b].
      public: what the group is asked about.
    """

    features: tf.Tensor
    labels: tf.Tensor
    public: Sequence[tf.Tensor]

    def uniform(self, shape: Sequence[int] = ()) -> tf.Tensor:
        """Uniforms in [0, 1): float32 [b, *shape]. Secret, like the noise."""
        ...

    def normal(self, shape: Sequence[int] = ()) -> tf.Tensor:
        """Standard normals: float32 [b, *shape]. Secret, like the noise."""
        ...


_NoisedSum = Callable[[Sequence[Any]], npt.NDArray[np.float64] | None]
GroupLoss = Callable[[tf.keras.Model, Any], tf.Tensor]
AnswerFn = Callable[..., tf.Tensor]


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """How a group trains its network before it answers: public settings.

    Attributes:
      learning_rate: of Keras's Adam.
      batch_size: examples of the group in a training step, drawn with replacement.
      steps: training steps each time that the group is sampled.
      beta_1, beta_2: of Adam.

    Raises:
      ValueError: if a setting is not greater than 0.
    """

    learning_rate: float = 1e-3
    batch_size: int = 32
    steps: int = 5
    beta_1: float = 0.5
    beta_2: float = 0.9

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"`{field.name}` should be greater than 0; got {getattr(self, field.name)!r}.")

    def optimizer(self) -> Any:
        """A new one."""
        return tf.keras.optimizers.legacy.Adam(self.learning_rate, self.beta_1, self.beta_2)


class _Batch:
    """A `GroupBatch`."""

    def __init__(
        self, features: Any, labels: Any, public: Sequence[Any], size: int, randomness: ExampleRandomness
    ) -> None:
        self.features, self.labels, self.public = features, labels, public
        self._size, self._randomness = size, randomness

    def uniform(self, shape: Sequence[int] = ()) -> tf.Tensor:
        return self._randomness.uniform([self._size, *shape])

    def normal(self, shape: Sequence[int] = ()) -> tf.Tensor:
        return self._randomness.normal([self._size, *shape])


class _Constants:
    """Stands for secret randomness while a loss is checked: what is drawn is no operation of the loss's own."""

    def uniform(self, shape: Sequence[int]) -> tf.Tensor:
        return tf.fill(shape, 0.5)

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        return tf.zeros(shape)


class LocalWork(NamedTuple):
    """What a sampled user does with a public network: the arguments of `PrivateSession.federation`, by name.

    A method that gives it from public facts alone can be trained where the examples are (`tfdpgen.federation`).
    """

    network: tf.keras.Model
    loss_fn: GroupLoss
    public: Sequence[tf.TensorSpec]
    transform: Transform
    learning: LocalTraining


class Ensemble:
    """Groups that answer; made by `PrivateSession.ensemble`, `federation` and `poll`, which check what they are given.

    Args:
      mechanism: calibrated.
      sums: reserves the plan, and gives a function (groups that were sampled, public tensors) -> sum of their bounded
        answers, float64 [size]: private; or None where the step was lost, which only happens where groups are elsewhere
        (`remote.py`). Called once.
      noise: where noise and samples come from.
      backup: (total steps, state) -> what keeps the steps; None where nothing is kept.
    """

    def __init__(
        self,
        mechanism: GroupSum,
        sums: Callable[[], SumOf],
        noise: NoiseSource,
        *,
        backup: Callable[[int, Mapping[str, Any]], StepBackup] | None,
    ) -> None:
        def run(ask: Any, answer: Any, state: Mapping[str, Any], verbose: int) -> None:
            noised_sums = _noised_sums(mechanism, sums(), noise)
            kept = backup(mechanism.steps, state) if backup is not None else None
            first = kept.first if kept is not None else 0
            bar = tf.keras.utils.Progbar(
                mechanism.steps, verbose=verbose, interval=1.0, unit_name="step", stateful_metrics=["lost"]
            )
            if first:
                if verbose:
                    anew = isinstance(mechanism, NetworkSum) and mechanism.keeps_networks
                    learnt = ", with networks that learn anew" if anew else ""
                    print(f"Going on at step {first + 1} of {mechanism.steps}{learnt}.")
                bar.update(first)
            lost = 0
            for step, noised_sum in enumerate(noised_sums(first), first):
                noised = noised_sum(ask(step))
                if noised is None:  # charged and counted; nothing of it is noised, shown or tried again
                    lost += 1
                else:
                    answer(step, mechanism.result(noised))
                if kept is not None:
                    kept.after_step(step + 1)
                bar.add(1, [("lost", lost)] if lost else None)

        self._run = run  # a closure and no attribute: what leads to the examples is the session's

    def run(
        self,
        ask: Callable[[int], Sequence[Any]],
        answer: Callable[[int, Any], object],
        *,
        state: Mapping[str, Any] | None = None,
        verbose: int = 1,
    ) -> None:
        """Runs all steps, once, and shows a progress bar without private metrics.

        With a backup that keeps progress, it goes on behind the steps that were claimed before, and repeats none.

        Args:
          ask: the number of a step -> public tensors of static shapes, always the same ones.
          answer: gets the number of each step that was not lost and what the mechanism makes of the noised sum.
          state: what `ask` and `answer` change, as TensorFlow trackables whose variables are made; kept in a backup.
          verbose: 1 shows the bar.

        Raises:
          PlanError: if the mechanism was carried out before.
          BudgetExceededError: if the limit would be exceeded; nothing was spent then.
          ValueError: if the loss or the answers are refused; nothing was spent then.
        """
        self._run(ask, answer, dict(state or {}), verbose)


def _noised_sums(mechanism: GroupSum, sum_of: SumOf, noise: NoiseSource) -> Callable[[int], Iterator[_NoisedSum]]:
    """A function: the first step -> for each step a function, of what is asked, that gives the noised sum or None.

    What has no noise yet is in frames that have ended when `ask` and `answer` run: a report of an error of theirs,
    with the values of all variables on the way, does not show it.
    """
    samples, normals = noise.numpy_generator(), noise.numpy_generator()

    def of(sampled: npt.NDArray[np.int64]) -> _NoisedSum:
        def noised_sum(asked: Sequence[Any]) -> npt.NDArray[np.float64] | None:
            total = without_values(sum_of, sampled, asked)
            if total is None:
                return None
            noised = total + normals.normal(scale=mechanism.stddev, size=total.shape)
            return noised.astype(np.float32).astype(np.float64)  # fewer bits than were drawn

        return noised_sum

    return lambda first: map(of, mechanism.samples(samples, first))


def group_sums(
    mechanism: NetworkSum,
    network: tf.keras.Model,
    loss_fn: GroupLoss,
    answer_fn: AnswerFn,
    public: Sequence[tf.TensorSpec],
    learning: LocalTraining,
    transform: Transform,
    dataset: Dataset,
    groups: npt.NDArray[np.int64],
    noise: NoiseSource,
) -> Callable[[npt.NDArray[np.int64], Sequence[Any]], npt.NDArray[np.float64]]:
    """A function (groups that were sampled, public tensors) -> sum of their bounded answers, float64 [size]: private.

    Each call trains the networks of these groups further. A group without examples answers with initial weights. Where
    the mechanism keeps no networks, a group starts from `network` as it is at the call, and answers with what its
    trainable weights have changed by.
    """
    clone = tf.keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    optimizer = learning.optimizer()
    batch_size = learning.batch_size
    optimizer._create_all_weights(clone.trainable_variables)
    variables = [*clone.weights, *optimizer.variables()]
    initial = [tf.constant(variable.numpy()) for variable in variables]
    kept = mechanism.num_groups if mechanism.keeps_networks else 0
    stacked = [
        tf.Variable(tf.tile(value[None], [kept, *([1] * value.shape.rank)]), trainable=False) for value in initial
    ]
    order = tf.constant(np.argsort(groups, kind="stable"), tf.int64)
    sizes = np.bincount(groups, minlength=mechanism.num_groups)
    starts, sizes = tf.constant(np.cumsum(sizes) - sizes, tf.int64), tf.constant(sizes, tf.int64)
    features, labels = (tf.constant(array) for array in features_of(dataset, transform))
    randomness = noise.examples()

    def train(group: tf.Tensor, public: Sequence[tf.Tensor]) -> None:
        """One step on a batch of the group."""
        places = tf.floor(randomness.uniform([batch_size]) * tf.cast(sizes[group], tf.float32))
        places = tf.minimum(tf.cast(places, tf.int64), sizes[group] - 1)  # a product may be rounded up
        chosen = tf.gather(order, starts[group] + places)
        batch = _Batch(tf.gather(features, chosen), tf.gather(labels, chosen), public, batch_size, randomness)
        with tf.GradientTape() as tape:
            loss = loss_fn(clone, batch)
        gradients = tape.gradient(loss, clone.trainable_variables)
        optimizer.apply_gradients(zip(gradients, clone.trainable_variables, strict=True))

    def one(group: tf.Tensor, server: Sequence[tf.Tensor], public: Sequence[tf.Tensor]) -> tf.Tensor:
        """Loads a group's network, trains it, asks it and puts it away."""
        # A sparse read: another one would copy all groups' values each time, since single ones are written.
        start = [rows.sparse_read(group) for rows in stacked] if kept else [*server, *initial[len(server) :]]
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        steps = tf.where(sizes[group] > 0, learning.steps, 0)

        def body(step: tf.Tensor) -> tf.Tensor:
            train(group, public)
            return step + 1

        tf.while_loop(lambda step: step < steps, body, [tf.constant(0)], parallel_iterations=1)
        if kept:
            for variable, rows in zip(variables, stacked, strict=True):
                rows.scatter_update(tf.IndexedSlices(variable[None], group[None]))
            answer = answer_fn(clone, *public)
        else:
            before = {id(variable): value for variable, value in zip(variables, start, strict=True)}
            changes = [variable - before[id(variable)] for variable in clone.trainable_variables]
            answer = tf.concat([tf.reshape(change, [-1]) for change in changes], axis=0)
        return tf.ensure_shape(mechanism.bounded(answer), [mechanism.size])

    of_server = [] if kept else [tf.TensorSpec(weight.shape, weight.dtype) for weight in network.weights]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), *of_server, *public], autograph=False)
    def sums(sampled: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        server, public = tensors[: len(of_server)], tensors[len(of_server) :]
        _, total = tf.while_loop(
            lambda i, total: i < tf.size(sampled),
            lambda i, total: (i + 1, total + tf.cast(one(sampled[i], server, public), tf.float64)),
            [tf.constant(0), tf.zeros([mechanism.size], tf.float64)],
            parallel_iterations=1,
        )
        return total

    def sum_of(sampled: npt.NDArray[np.int64], public: Sequence[Any]) -> npt.NDArray[np.float64]:
        server = [weight.value() for weight in network.weights[: len(of_server)]]
        try:
            return sums(tf.constant(sampled, tf.int64), *server, *public).numpy()
        finally:
            for variable, value in zip(variables, initial, strict=True):
                variable.assign(value)  # nothing private stays in what the functions have seen

    return sum_of


def check_group_functions(
    network: tf.keras.Model,
    loss_fn: GroupLoss,
    answer_fn: AnswerFn,
    mechanism: NetworkSum,
    features_spec: tf.TensorSpec,
    public: Sequence[tf.TensorSpec],
    learning: LocalTraining,
) -> None:
    """Refuses a loss or answers that keep what they see, draw at random by themselves, or have another shape.

    Raises:
      ValueError: what is wrong.
    """
    clone, batch_size = tf.keras.models.clone_model(network), learning.batch_size

    def loss(features: tf.Tensor, labels: tf.Tensor, *tensors: tf.Tensor) -> Any:
        stand_in: Any = _Constants()
        with tf.GradientTape() as tape:  # gradients may be functions of their own, and run in training
            value = loss_fn(clone, _Batch(features, labels, tensors, batch_size, stand_in))
        gradients = tape.gradient(value, clone.trainable_variables)
        return value, *[gradient for gradient in gradients if gradient is not None]

    private = [tf.TensorSpec([batch_size, features_spec.shape[1]], tf.float32), tf.TensorSpec([batch_size], tf.int64)]
    shape = traced(loss, [*private, *public], "`loss_fn`").outputs[0].shape
    if shape.rank != 0:
        raise ValueError(f"`loss_fn` should give one number for a batch of a group; got shape {shape}.")
    if not mechanism.keeps_networks:
        if (size := sum(weight.shape.num_elements() for weight in network.trainable_weights)) != mechanism.size:
            raise ValueError(f"`network` should have {mechanism.size} trainable weights, as the plan says; got {size}.")
        return
    answers = traced(lambda *tensors: mechanism.bounded(answer_fn(clone, *tensors)), list(public), "`answer_fn`")
    shape = answers.outputs[0].shape
    if shape != tf.TensorShape([mechanism.size]):
        raise ValueError(
            f"`answer_fn` should give what {type(mechanism).__name__} bounds to {mechanism.size} numbers; got {shape}."
        )
