"""PrivateSession: the only holder of the private examples, the ledger, the noise and the backup during a training.

    session = PrivateSession(dataset, plan.calibrate(budget), budget, ledger=ledger)
    trainer = session.trainer("dp_sgd", [network], loss_fn, learning_rate=1e-3)       # checks; touches nothing
    means = session.run("class_means", transform)                                     # reserves the plan, then one pass
    trainer.run()                                                                     # all steps, once

A method asks for mechanisms by key and gets noisy outputs back. What it makes of them is post-processing: it never has
a private tensor in its hands. Functions that it passes in, a transform of images or a loss of a batch, are traced and
checked first (`isolation.py`), are run here, and what they give is bounded example by example before it is summed.

The session carries out what its plan lists, each mechanism once, and refuses anything else. The cost of the whole plan
is reserved before the first access; a plan cannot be exchanged afterwards. DP-SGD's networks and losses have to be
known by then, so that what cannot be trained privately is refused while nothing has been spent.

Python has no walls: code that looks for the examples in the interpreter's memory finds them. What is prevented is that
a method reads them by accident, or by habit.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.data.public_images import PublicImages
from tfdpgen.privacy import accounting, ensemble
from tfdpgen.privacy.accounts.identity import Identity, set_digest
from tfdpgen.privacy.backup import Backup
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.clipping import check_network
from tfdpgen.privacy.ensemble import AnswerFn, Ensemble, GroupLoss, LocalTraining, check_group_functions
from tfdpgen.privacy.isolation import LossFn, Transform, check_loss, check_transform, traced, without_values
from tfdpgen.privacy.ledger import Ledger, dataset_id
from tfdpgen.privacy.mechanisms.base import GaussianSum, NetworkSum
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage
from tfdpgen.privacy.mechanisms.votes import Votes
from tfdpgen.privacy.noise import NoiseSource
from tfdpgen.privacy.optimizer import DPKerasAdam
from tfdpgen.privacy.plan import PrivacyPlan, Shards
from tfdpgen.privacy.remote import RemoteUsers, SumOf
from tfdpgen.privacy.trainer import Trainer, features_of


class PlanError(ValueError):
    """A method asked for something that its plan does not list, or for something a second time."""


@dataclasses.dataclass
class _Held:
    """What a session holds; no attribute of the session leads here."""

    dataset: Callable[[], Dataset | RemoteUsers]
    noise: NoiseSource
    backup: Backup | None
    reserve: Callable[[], None]
    confirm: Callable[[], None]
    prefix: str = ""
    event: Any = None
    begun: set[str] = dataclasses.field(default_factory=set)
    trainers: set[str] = dataclasses.field(default_factory=set)
    lock: Any = dataclasses.field(default_factory=threading.Lock)  # of `begun`

    def here(self) -> Dataset:
        """The private examples of a session that has any."""
        return cast(Dataset, self.dataset())


_HELD: weakref.WeakKeyDictionary[PrivateSession, _Held] = weakref.WeakKeyDictionary()


class PrivateSession:
    """Carries out a plan on private examples, which it alone holds; see the top of this file.

    Args:
      dataset: the private examples, or users who have them elsewhere.
      plan: calibrated; of as many examples.
      budget: what the plan may cost at most.
      noise: where noise, Poisson samples and all randomness of examples come from; by default the operating system.
      ledger: where the plan's cost is reserved before the first access.
      limit: the most that all reservations on these examples may cost; needs a ledger.
      backup: keeps the progress, and goes on with what it keeps of the same training.
      facts: JSON-ready facts by which a backup knows the training again, besides the plan and the examples.
      purpose: a note for people, in the ledger.
      public_images: what the method may learn from for nothing.

    Raises:
      ValueError: for a plan that is not calibrated, is for another number of examples or costs more than the budget, a
        plan for users where the data set does not say whose its examples are, a plan of anything but federations for
        users who are elsewhere, a limit without a ledger, or a backup with seeded noise. Nothing was spent then.
    """

    __slots__ = ("__weakref__", "_plan", "_public_images", "_spec")

    def __init__(
        self,
        dataset: Dataset | RemoteUsers,
        plan: PrivacyPlan,
        budget: PrivacyBudget,
        *,
        noise: NoiseSource | None = None,
        ledger: Ledger | None = None,
        limit: PrivacyBudget | None = None,
        backup: Backup | None = None,
        facts: Mapping[str, Any] | None = None,
        purpose: str = "",
        public_images: PublicImages | None = None,
    ) -> None:
        noise = noise or NoiseSource()
        if limit is not None and ledger is None:
            raise ValueError("`limit` needs a `ledger` that knows what was spent before.")
        if backup is not None and not noise.is_secure:
            raise ValueError("`backup` cannot go with seeded noise: a resumed training would add the same noise again.")
        if not plan.is_calibrated:
            raise ValueError("`plan` should be calibrated: call `plan.calibrate(budget)`, which returns a copy.")
        if isinstance(dataset, RemoteUsers):
            if not all(isinstance(part, FederatedAverage) for part in plan.mechanisms.values()):
                raise ValueError("`plan` should hold federated averages alone for users who are elsewhere.")
        elif plan.unit is PrivacyUnit.EXAMPLE and plan.num_examples != len(dataset):
            raise ValueError(f"`plan` should be for {len(dataset)} examples; it is for {plan.num_examples}.")
        elif plan.unit is PrivacyUnit.USER and dataset.user_ids is None:
            raise ValueError("`plan` promises privacy to users, and `dataset` does not say whose its examples are.")
        if plan.unit is PrivacyUnit.USER and plan.num_examples != (users := num_users(dataset)):
            raise ValueError(f"`plan` should be for {users} users; it is for {plan.num_examples}.")
        budget.check_num_examples(plan.num_examples, plan.unit)
        if (cost := plan.epsilon(budget.delta)) > budget.epsilon:
            raise ValueError(
                f"`plan` costs epsilon={cost:.4g} at delta={budget.delta:g}, more than {budget.epsilon:g}."
            )
        reserve = _Reservation(dataset, plan, budget, ledger, limit, backup, dict(facts or {}), purpose)
        self._open(plan, dataset.spec, public_images, _Held(lambda: dataset, noise, backup, reserve, reserve.confirm))

    def _open(self, plan: PrivacyPlan, spec: DataSpec, public_images: PublicImages | None, held: _Held) -> None:
        self._plan, self._spec, self._public_images = plan, spec, public_images
        held.event = accounting.event_to_dict(plan.event)
        _HELD[self] = held

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"A PrivateSession has no attribute {name!r}. Private examples, noise, ledger and backup are the session's "
            "alone: ask it for a mechanism of the plan by `run`, `trainer` or `partition`."
        )

    @property
    def spec(self) -> DataSpec:
        """Public facts of the data."""
        return self._spec

    @property
    def plan(self) -> PrivacyPlan:
        """What this session may do, calibrated; frozen."""
        return self._plan

    @property
    def public_images(self) -> PublicImages | None:
        """What the method may learn from for nothing; None where there is nothing."""
        return self._public_images

    @property
    def num_examples(self) -> int:
        """Number of private examples, public by assumption; of a shard, what is expected."""
        return self._plan.num_examples

    def confirm(self) -> None:
        """Writes into the ledger that what was reserved has run; without it, it counts just the same."""
        _HELD[self].confirm()

    def run(self, key: str, transform: Transform) -> Any:
        """Carries out a one-shot mechanism, in one pass over the examples.

        Args:
          key: of a `GaussianSum` in the plan.
          transform: images float32 [k, h, w, c] in [0, 1] and labels int64 [k] -> features float32 [k, d], in
            TensorFlow operations, each example alone. It may use public and released values.

        Returns:
          What the mechanism's `result` makes of the noised sum.

        Raises:
          PlanError: if the plan has no such mechanism, or it was carried out before, or DP-SGD's networks are not known
            yet.
          ValueError: if the transform is refused.
          BudgetExceededError: if the limit would be exceeded; nothing was spent then.
        """
        return self.run_together({key: transform})[key]

    def run_together(self, transforms: Mapping[str, Transform]) -> dict[str, Any]:
        """Carries out several one-shot mechanisms in one pass over the examples; see `run`.

        Returns:
          The results by key.
        """
        held = _HELD[self]
        mechanisms = {key: cast(GaussianSum, self._mechanism(key, GaussianSum)) for key in transforms}
        self._check_networks_are_known()
        if not mechanisms:
            raise PlanError("`transforms` should name at least one mechanism.")
        for key, mechanism in mechanisms.items():
            features = check_transform(transforms[key], self._spec)
            if features.shape[1] != mechanism.num_columns:
                raise ValueError(
                    f"`transform` of {key!r} should give {mechanism.num_columns} features an example, as "
                    f"{type(mechanism).__name__} in the plan says; it gives {features.shape[1]}."
                )
        self._begin(*transforms)
        kept = {key: held.backup.output(held.prefix + key) if held.backup else None for key in transforms}
        if any(output is None for output in kept.values()):
            missing = {key: (part, transforms[key]) for key, part in mechanisms.items() if kept[key] is None}
            by_user = self._plan.unit is PrivacyUnit.USER
            sums = without_values(sums_of, held.here(), missing, by_user=by_user)
            for key, total in sums.items():
                if held.backup:
                    held.backup.mark(held.prefix + key)
                noise = held.noise.numpy_generator().normal(scale=mechanisms[key].stddev, size=total.shape)
                kept[key] = total + noise
                if held.backup:
                    held.backup.keep(held.prefix + key, cast(Any, kept[key]))
        return {key: mechanism.result(cast(Any, kept[key])) for key, mechanism in mechanisms.items()}

    def trainer(
        self,
        key: str,
        networks: Sequence[tf.keras.Model],
        loss_fn: LossFn,
        *,
        learning_rate: float | Callable[[int], float],
        optimizer_class: type[Any] = DPKerasAdam,
        transform: Transform | None = None,
        public_loss_fn: Callable[[], tf.Tensor] | None = None,
        **optimizer_arguments: Any,
    ) -> Trainer:
        """Prepares a training by DP-SGD: networks and loss are checked, and no example is touched.

        Args:
          key: of a `DPSGD` in the plan.
          networks: what is trained; built Keras models of known layers.
          loss_fn: batch (`isolation.Batch`) -> losses float32 [b], one an example, or [b, views], which are averaged
            before the clip. Its randomness comes from `batch.normal` and `batch.uniform`.
          learning_rate: a number, or a function of the step's number.
          optimizer_class: `DPKerasAdam`, `DPKerasSGD` or `DPKerasAdamW`.
          transform: images, labels -> features float [k, d], computed once for all examples and held in memory in their
            dtype; the batch then has `features`.
          public_loss_fn: losses float32 [k] of synthetic examples, which are clipped like private ones and weighted as
            if there were `expected_batch_size` of them.
          **optimizer_arguments: of Keras's optimizer of that name.

        Raises:
          PlanError: if the plan has no such mechanism, or a trainer of it was asked for before.
          ValueError: if a network, the loss or the transform is refused: which, why, and what to do.
        """
        held, mechanism = _HELD[self], cast(DPSGD, self._mechanism(key, DPSGD))
        if key in held.trainers:
            raise PlanError(f"{key!r} has a trainer already; the plan has it once.")
        for network in networks:
            check_network(network)
        features_spec = check_transform(transform, self._spec) if transform is not None else None
        check_loss(loss_fn, self._spec, features_spec)
        held.trainers.add(key)

        def examples() -> Dataset:
            self._check_networks_are_known()
            self._begin(key)
            return held.here()

        return Trainer(
            mechanism,
            networks,
            loss_fn,
            examples,
            held.noise,
            backup=functools.partial(held.backup.steps, held.prefix + key) if held.backup else None,
            spec=self._spec,
            learning_rate=learning_rate,
            optimizer_class=optimizer_class,
            transform=transform,
            public_loss_fn=public_loss_fn,
            optimizer_arguments=optimizer_arguments,
        )

    def train(
        self,
        key: str,
        networks: Sequence[tf.keras.Model],
        loss_fn: LossFn,
        *,
        after_step: Callable[[int], object] | None = None,
        state: Mapping[str, Any] | None = None,
        verbose: int = 1,
        **arguments: Any,
    ) -> None:
        """Trains by DP-SGD: `trainer(key, networks, loss_fn, **arguments).run(...)`."""
        trainer = self.trainer(key, networks, loss_fn, **arguments)
        trainer.run(after_step=after_step, state=state, verbose=verbose)

    def ensemble(
        self,
        key: str,
        network: tf.keras.Model,
        loss_fn: GroupLoss,
        answer_fn: AnswerFn,
        *,
        public: Sequence[tf.TensorSpec],
        transform: Transform,
        learning: LocalTraining,
    ) -> Ensemble:
        """Prepares networks on disjoint shards, whose answers leave bounded, summed and noised; touches no example.

        Every example is dealt to one shard, at random and in secret. A shard's network is trained on its examples and
        on what it is asked about, and is never released.

        Args:
          key: of a `SanitisedGradient` in the plan.
          network: whose structure and initial weights the networks of all shards have.
          loss_fn: network, batch (`ensemble.GroupBatch`) -> loss of a training step in one shard, float32 []. Its
            randomness comes from `batch.uniform` and `batch.normal`.
          answer_fn: network, *public tensors -> the answer of one shard, float32 [size].
          public: static shapes and dtypes of what the networks are asked about.
          transform: images, labels -> features float32 [k, d], computed once for all examples and held in memory.
          learning: how a shard trains its network each time that it is sampled.

        Raises:
          PlanError: if the plan has no such mechanism, or an ensemble of it was asked for before.
          ValueError: if the transform, the loss or the answers are refused: which, why, and what to do.
        """
        return self._of_groups("ensemble", key, network, loss_fn, answer_fn, public, transform, learning)

    def federation(
        self,
        key: str,
        network: tf.keras.Model,
        loss_fn: GroupLoss,
        *,
        public: Sequence[tf.TensorSpec],
        transform: Transform,
        learning: LocalTraining,
    ) -> Ensemble:
        """Prepares rounds in which sampled users train copies of a public network; touches no example.

        What leaves a round is the noised mean of what their trainable weights changed by, each user's clipped as a
        whole: float64 [number of trainable weights], in the order of `network.trainable_weights`. The network itself
        stays as it is; whoever asks applies the mean.

        Args:
          key: of a `FederatedAverage` in the plan.
          network: from which users start, as it is when they are asked.
          loss_fn: as in `ensemble`, of one user's examples.
          public: as in `ensemble`.
          transform: as in `ensemble`.
          learning: how a user trains the copy.

        Raises:
          PlanError: as in `ensemble`.
          ValueError: as in `ensemble`, or if the network has another number of trainable weights than the plan says.
        """

        def nothing(*_: Any) -> tf.Tensor:  # is asked: a user answers with its update
            return tf.zeros([0])

        return self._of_groups("federation", key, network, loss_fn, nothing, public, transform, learning)

    def poll(self, key: str, transform: Transform) -> Ensemble:
        """Prepares teachers on disjoint shards, who vote where their examples lie; touches no example.

        Every example is dealt to one shard of its class, at random and in secret. What is asked in a step are
        directions, [num_classes, queries, d], and thresholds, [num_classes, queries, options - 1]; what leaves are
        noisy counts, float64 [num_classes, queries, options].

        Args:
          key: of `Votes` in the plan.
          transform: images, labels -> features float32 [k, d], in whose space directions are; computed once for all
            examples and held in memory.

        Raises:
          PlanError: if the plan has no such mechanism, or a poll of it was asked for before.
          ValueError: if the transform is refused: why, and what to do.
        """
        held, mechanism = _HELD[self], cast(Votes, self._mechanism(key, Votes))
        if key in held.trainers:
            raise PlanError(f"{key!r} has a poll already; the plan has it once.")
        check_transform(transform, self._spec)
        held.trainers.add(key)

        def sums() -> SumOf:
            self._check_networks_are_known()
            self._begin(key)
            dataset = held.here()
            made = without_values(features_of, dataset, _one_by_one(transform))
            features, labels = (values[: len(dataset)] for values in made)
            shards = self._dealt(f"{key}.shards", mechanism.num_teachers)
            rng = held.noise.numpy_generator()

            def counts(everybody: npt.NDArray[np.int64], asked: Sequence[Any]) -> npt.NDArray[np.float64]:
                directions, thresholds = asked
                return mechanism.counts(features, labels, shards, directions, thresholds, rng)

            return counts

        steps = functools.partial(held.backup.steps, held.prefix + key) if held.backup else None
        return Ensemble(mechanism, sums, held.noise, backup=steps)

    def _of_groups(
        self,
        asked: str,
        key: str,
        network: tf.keras.Model,
        loss_fn: GroupLoss,
        answer_fn: AnswerFn,
        public: Sequence[tf.TensorSpec],
        transform: Transform,
        learning: LocalTraining,
    ) -> Ensemble:
        """An ensemble on shards, or on users."""
        held, mechanism = _HELD[self], cast(NetworkSum, self._mechanism(key, NetworkSum))
        if mechanism.keeps_networks is not (asked == "ensemble"):
            raise PlanError(f"{key!r} is a {type(mechanism).__name__}, which is not for `{asked}`.")
        if key in held.trainers:
            raise PlanError(f"{key!r} has an ensemble already; the plan has it once.")
        features_spec = check_transform(transform, self._spec)
        check_group_functions(network, loss_fn, answer_fn, mechanism, features_spec, public, learning)
        held.trainers.add(key)

        def sums() -> SumOf:
            self._check_networks_are_known()
            self._begin(key)
            dataset = held.dataset()
            if isinstance(dataset, RemoteUsers):
                return dataset.sums(cast(FederatedAverage, mechanism), network)
            if mechanism.unit is PrivacyUnit.USER:
                groups = np.unique(cast(Any, dataset.user_ids), return_inverse=True)[1].astype(np.int64)
            else:
                groups = self._dealt(f"{key}.shards", mechanism.num_groups)
            functions = network, loss_fn, answer_fn, public, learning, transform
            return without_values(ensemble.group_sums, mechanism, *functions, dataset, groups, held.noise)

        steps = functools.partial(held.backup.steps, held.prefix + key) if held.backup else None
        return Ensemble(mechanism, sums, held.noise, backup=steps)

    def public(self, key: str, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What a public computation gives, such as weights learnt from public images; computed once.

        A resumed training goes on with what the first one had, to the last bit: what was released in a space of
        features is of use in that very space alone. With a backup the plan is reserved first.

        Args:
          key: an identifier, by which it is kept.
          compute: touches no private example.

        Raises:
          ValueError: if the key is no identifier.
          PlanError: if DP-SGD's networks are not known yet.
          BudgetExceededError: if the limit would be exceeded; nothing was spent then.
        """
        held = _HELD[self]
        if not key.isidentifier():
            raise ValueError(f"`key` should be an identifier, such as 'autoencoder'; got {key!r}.")
        self._check_networks_are_known()
        if held.backup is None:
            return compute()
        self._begin()
        name = f"{held.prefix}{key}.public"
        kept = held.backup.output(name)
        if kept is None:
            kept = compute()
            held.backup.keep(name, kept)
        return kept

    def partition(self, key: str) -> list[PrivateSession]:
        """A session for each of the disjoint shards that the plan lists under `key`, once.

        Every example is dealt to one of them, at random and in secret, when the first of them touches its own.

        Raises:
          PlanError: if the plan has no such shards, or they were dealt before, or DP-SGD's networks are not known yet.
        """
        held, mechanism = _HELD[self], cast(Shards, self._mechanism(key, Shards))
        self._check_networks_are_known()
        self._mark_begun(key)
        dealt, lock = [], threading.Lock()

        def shard(number: int) -> Dataset:
            with lock:
                if not dealt:
                    dealt.append(self._dealt(key, mechanism.num_shards))
            return held.here().take(np.flatnonzero(dealt[0] == number))

        sessions = []
        for number in range(mechanism.num_shards):
            child = PrivateSession.__new__(PrivateSession)
            child._open(
                mechanism.plan,
                self._spec,
                self._public_images,
                _Held(
                    lambda number=number: shard(number),
                    held.noise,
                    held.backup,
                    held.reserve,
                    held.confirm,
                    f"{held.prefix}{key}.{number}.",
                ),
            )
            sessions.append(child)
        return sessions

    def _dealt(self, key: str, num_shards: int) -> npt.NDArray[np.int64]:
        """The shard of every example; the same again in a resumed training, or one could be in two."""
        held = _HELD[self]
        kept = held.backup.output(held.prefix + key) if held.backup else None
        if kept is None:
            dataset = held.here()
            rng = held.noise.numpy_generator()
            if self._plan.unit is PrivacyUnit.USER:  # a user's examples stay together
                users, places = np.unique(cast(Any, dataset.user_ids), return_inverse=True)
                kept = rng.integers(num_shards, size=len(users))[places]
            else:
                kept = rng.integers(num_shards, size=len(dataset))
            if held.backup:
                held.backup.keep(held.prefix + key, kept)
        if held.backup and not held.backup.is_marked(held.prefix + key):
            held.backup.mark(held.prefix + key)  # after it is kept: until then no shard was touched
        return cast(Any, kept)

    def _mechanism(self, key: str, kind: type) -> Any:
        """The plan's mechanism of that key.

        Raises:
          PlanError: if there is none, or it is of another kind, or it was begun before.
        """
        mechanism = self._plan.mechanisms.get(key)
        if mechanism is None:
            raise PlanError(
                f"`key` should be one of the plan's mechanisms, {', '.join(self._plan.mechanisms)}; got {key!r}. What "
                "is not in the plan is not accounted, and is not carried out."
            )
        if not isinstance(mechanism, kind):
            raise PlanError(f"{key!r} is a {type(mechanism).__name__}, which is not for `{_ASKED[kind]}`.")
        if key in _HELD[self].begun:
            raise PlanError(f"{key!r} was carried out before; the plan has it once.")
        return mechanism

    def _check_networks_are_known(self) -> None:
        """Raises a PlanError if networks are trained in the plan that were not checked yet, nor their losses."""
        known = _HELD[self].trainers
        for key, part in self._plan.mechanisms.items():
            for kind in (DPSGD, NetworkSum):
                if isinstance(part, kind) and key not in known:
                    raise PlanError(
                        f"The plan trains the networks of {key!r}, which are not known yet. Call "
                        f"`session.{_ASKED[kind]}({key!r}, ...)` before the first `run`, so that networks which cannot "
                        "be trained privately are refused before anything is spent."
                    )

    def _begin(self, *keys: str) -> None:
        """Reserves the plan if that was not done yet, and marks mechanisms as carried out."""
        held = _HELD[self]
        if held.event != accounting.event_to_dict(self._plan.event):
            raise PlanError("The plan is another one than this session was opened with; nothing is carried out.")
        self._mark_begun(*keys)
        held.reserve()

    def _mark_begun(self, *keys: str) -> None:
        held = _HELD[self]
        with held.lock:
            for key in keys:
                if key in held.begun:
                    raise PlanError(f"{key!r} was carried out before; the plan has it once.")
                held.begun.add(key)


_ASKED = {GaussianSum: "run", DPSGD: "trainer", Shards: "partition", NetworkSum: "ensemble", Votes: "poll"}


def _one_by_one(transform: Transform) -> Transform:
    """The transform of each example by itself: no bit of its features depends on how many others there are."""

    def alone(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda example: tf.cast(transform(example[0][None], example[1][None])[0], tf.float32),
            (images, labels),
            fn_output_signature=tf.float32,
        )

    return alone


def num_users(dataset: Dataset | RemoteUsers) -> int:
    """How many users there are; public by assumption, as the number of examples is elsewhere."""
    if isinstance(dataset, RemoteUsers):
        return dataset.num_users
    return len(np.unique(cast(Any, dataset.user_ids)))


class _Reservation:
    """Reserves a plan's cost once, or finds that a resumed training has done it."""

    def __init__(
        self,
        dataset: Dataset | RemoteUsers,
        plan: PrivacyPlan,
        budget: PrivacyBudget,
        ledger: Ledger | None,
        limit: PrivacyBudget | None,
        backup: Backup | None,
        facts: dict[str, Any],
        purpose: str,
    ) -> None:
        self._dataset, self._plan, self._budget = dataset, plan, budget
        self._ledger, self._limit, self._backup = ledger, limit, backup
        self._facts, self._purpose = facts, purpose
        self._is_made, self._lock = False, threading.Lock()
        self._reservation: str | None = None

    def confirm(self) -> None:
        """Has the ledger know that what was reserved has run."""
        if self._ledger is not None and self._reservation is not None:
            self._ledger.confirm(self._reservation)

    def __call__(self) -> None:
        with self._lock:  # shards may be trained by threads
            if not self._is_made:
                self._make()
                self._is_made = True

    def _make(self) -> None:
        ledger, backup, event, name = self._ledger, self._backup, self._plan.event, ""
        whose = self._dataset.account if isinstance(self._dataset, RemoteUsers) else self._dataset
        if backup is not None:
            name = dataset_id(whose) if isinstance(whose, Dataset) else whose
            name = set_digest(name.digests) if isinstance(name, Identity) else name
        if ledger is not None:
            whose = ledger.identity(whose)
        training = {**self._facts, "delta": self._budget.delta, "plan": self._plan.to_dict(), "examples": name}
        if self._plan.unit is PrivacyUnit.USER and not isinstance(self._dataset, RemoteUsers):
            users = np.unique(cast(Any, self._dataset.user_ids), return_inverse=True)[1].astype(np.int64)
            training["users"] = hashlib.sha256(users.tobytes()).hexdigest()
        is_resumed = backup is not None and backup.holds(training)
        reservation = backup.reservation if backup is not None else None
        is_paid = is_resumed and (ledger is None or ledger.has(reservation, whose, event))
        if ledger is not None and not is_paid:
            reservation = ledger.reserve(
                whose,
                event,
                delta=self._budget.delta,
                purpose=self._purpose,
                unit=self._plan.unit,
                limit=self._limit,
            )
        self._reservation = reservation
        if backup is not None and not (is_resumed and is_paid):
            backup.begin(training, reservation)


def sums_of(
    dataset: Dataset, asked: Mapping[str, tuple[GaussianSum, Transform]], *, by_user: bool
) -> dict[str, npt.NDArray[np.float64]]:
    """The sums of mechanisms over all examples, in one pass: private, since there is no noise in them yet."""
    spec = dataset.spec
    signature = [tf.TensorSpec([None, *spec.image_shape], tf.float32), tf.TensorSpec([None], tf.int64)]
    distinct = {id(transform): traced(transform, signature, "`transform`") for _, transform in asked.values()}
    sums = {key: np.zeros(mechanism.size) for key, (mechanism, _) in asked.items()}
    for images, labels, *users in _blocks_of_users(dataset) if by_user else dataset.blocks():
        inputs = tf.constant(images.astype(np.float32) / np.float32(255)), tf.constant(labels)
        features = {name: np.asarray(function(*inputs)) for name, function in distinct.items()}
        for key, (mechanism, transform) in asked.items():
            sums[key] += mechanism.sum_of(features[id(transform)], labels, *users)
    return sums


def _blocks_of_users(dataset: Dataset) -> Any:
    """Images, labels and users of whole users at a time: no user's examples are in two blocks."""
    users = cast(Any, dataset.user_ids)
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[order], prepend=users[order[:1]] - 1)) if len(order) else np.array([], int)
    size = 1024
    first = 0
    ends = [*starts[1:], len(order)]
    for position, end in enumerate(ends):
        if end - first >= size or position == len(ends) - 1:
            chosen = order[first:end]
            images, labels = dataset.examples(chosen)
            yield images, labels, np.unique(users[chosen], return_inverse=True)[1].astype(np.int64)
            first = end
