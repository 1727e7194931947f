"""What every synthesizer is: a network, a plan, and a training that runs exactly that plan.

    release = train("c_vae", dataset, PrivacyBudget(epsilon=3.0, delta=1e-5), seed=0)

`train` is the one way from private rows to a `Release`. It builds and checks the networks, calibrates the plan,
reserves the whole cost in the ledger, and only then hands the rows to the synthesizer.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.privacy import Backup, DPSGDPlan, Ledger, Mechanism, NoiseSource, PrivacyBudget, compose, dataset_id
from tfdpgen.privacy.accounting import event_to_dict
from tfdpgen.synthesizers.release import Release

_REGISTRY: dict[str, type[Synthesizer]] = {}
_Class = TypeVar("_Class", bound="type[Synthesizer]")


class Synthesizer(tf.keras.Model):
    """A method that learns a conditional generator of images from private rows.

    A subclass builds its networks in `__init__` from public facts alone, so that a network that cannot be trained
    privately is refused before any budget is spent. It is a Keras model, so its weights can be counted and saved with
    Keras's means; only what `train` returns is private enough to leave.

    Args:
      spec: public facts of the data.
      num_examples: number of private rows, public by assumption.
      seed: of initial weights and of everything else but the noise and the Poisson draws.
      preset: the method's hyperparameters. A subclass takes None for those that suit shape and number of rows.
    """

    method: ClassVar[str]

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: Any) -> None:
        super().__init__(name=self.method)
        self.spec = spec
        self.num_examples = num_examples
        self.seed = seed
        self.preset = preset

    @abc.abstractmethod
    def plan(self) -> DPSGDPlan:
        """The training's facts, without its noise."""

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        """The mechanisms that `prepare` will run besides the training, as a function of the budget."""
        return ()

    def prepare(self, dataset: Dataset, alongside: Sequence[Mechanism], noise: NoiseSource) -> None:
        """Runs the mechanisms `alongside`, once each, and starts the networks from what they release."""

    @abc.abstractmethod
    def learn(
        self, dataset: Dataset, plan: DPSGDPlan, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        """Runs the plan by `run_plan`, once, and returns the generator.

        Args:
          dataset: the private rows.
          plan: calibrated.
          noise: where every draw that privacy rests on comes from.
          verbose: 1 shows a progress bar, without private figures.
          backup: where the progress is kept. What `prepare` brought has to be in the state that is given to it.
        """


def register(cls: _Class) -> _Class:
    """Class decorator: makes a synthesizer known under its `method`."""
    _REGISTRY[cls.method] = cls
    return cls


def synthesizer_names() -> tuple[str, ...]:
    """The registered synthesizers' names."""
    return tuple(sorted(_REGISTRY))


def train(
    name: str,
    dataset: Dataset,
    budget: PrivacyBudget,
    *,
    seed: int = 0,
    insecure_reproducible: bool = False,
    ledger: Ledger | None = None,
    limit: PrivacyBudget | None = None,
    preset: Any = None,
    backup: Backup | None = None,
    verbose: int = 1,
) -> Release:
    """Trains a synthesizer on private rows and returns what may be released.

    Args:
      name: one of `synthesizer_names()`.
      dataset: the private rows.
      budget: what the release may cost each row at most.
      seed: of initial weights, latents and the like; never of noise or of Poisson draws.
      insecure_reproducible: seeds noise and draws as well; the release is then marked as not for release.
      ledger: where the cost is reserved before the first row is touched.
      limit: the most that all reservations on these rows may cost; needs a ledger.
      preset: the method's hyperparameters (`CVAEPreset`, `DPGANPreset`); by default chosen by shape and number of rows.
      backup: keeps the progress, and goes on with what it keeps of the same training. Its cost is not reserved again
        where the ledger holds the reservation already.
      verbose: 1 shows progress, 0 nothing.

    Raises:
      ValueError: for an unknown name, a delta that is not smaller than 1 / num_examples, or a budget too small for
        the method's statistics, or a backup with seeded noise; nothing was spent then.
      BackupError: if `backup` keeps another training, or other rows; nothing was spent then.
      BudgetExceededError: if `limit` would be exceeded; nothing was spent then.
    """
    if name not in _REGISTRY:
        raise ValueError(f"`synthesizer` should be one of {', '.join(synthesizer_names())}; got {name!r}.")
    if limit is not None and ledger is None:
        raise ValueError("`limit` needs a `ledger` that knows what was spent before.")
    if backup is not None and insecure_reproducible:
        raise ValueError(
            "`backup` cannot go with `insecure_reproducible`: a resumed run would add the same seeded noise again."
        )
    budget.check_num_examples(len(dataset))
    synthesizer = _REGISTRY[name](dataset.spec, len(dataset), seed, preset)
    alongside = tuple(synthesizer.alongside(budget))
    plan = synthesizer.plan().calibrate(budget, alongside)
    noise = NoiseSource.insecure(seed) if insecure_reproducible else NoiseSource()
    statement = plan.statement(budget.delta, alongside, noise)
    event = compose([*alongside, plan])
    rows = dataset_id(dataset) if ledger is not None or backup is not None else ""
    training = {
        "synthesizer": name,
        "preset": dataclasses.asdict(synthesizer.preset),
        "seed": seed,
        "delta": budget.delta,
        "plan": dataclasses.asdict(plan),
        "event": event_to_dict(event),
        "rows": rows,
    }
    is_resumed = backup is not None and backup.holds(training)
    reservation = backup.reservation if backup is not None else None
    if ledger is not None and not (is_resumed and ledger.has(reservation, rows, event)):
        reservation = ledger.reserve(rows, event, delta=budget.delta, purpose=f"train {name}", limit=limit)
    if backup is not None:
        backup.reservation = reservation
    tf.config.experimental.enable_tensor_float_32_execution(False)  # norms of 10 bits may be too small
    if not is_resumed:
        synthesizer.prepare(dataset, alongside, noise)
    generator = synthesizer.learn(dataset, plan, noise, verbose, backup)
    return Release(generator, dataset.spec, event, statement, name)


def run_plan(
    plan: DPSGDPlan,
    noise: NoiseSource,
    step_fn: Callable[[tf.Tensor, tf.Tensor], object],
    *,
    after_step_fn: Callable[[int], object] = lambda step: None,
    state: Mapping[str, Any],
    backup: Backup | None,
    verbose: int,
) -> None:
    """Runs exactly the plan's steps, each on one Poisson draw, and shows a progress bar.

    With a backup that keeps progress, it goes on behind the steps that were claimed before, and executes no step twice.

    Args:
      plan: calibrated.
      noise: of the draws.
      step_fn: called with indices int32 and weights float32, both [chunks, physical_batch_size].
      after_step_fn: called with the number of each step after it; touches no private row.
      state: all that the steps change, as TensorFlow trackables whose variables are made.
      backup: where the state is kept.
      verbose: 1 shows the bar. It counts steps and shows nothing of the rows.
    """
    first = backup.start(plan, **state) if backup is not None else 0
    bar = tf.keras.utils.Progbar(plan.steps, verbose=verbose, interval=1.0, unit_name="step")
    if first:
        if verbose:
            print(f"Going on at step {first + 1} of {plan.steps}; those before it were executed, or given up.")
        bar.update(first)
    for number, batch in enumerate(plan.batches(noise, first), first):
        step_fn(tf.constant(batch.indices), tf.constant(batch.weights))
        after_step_fn(number)
        if backup is not None:
            backup.after_step(number + 1)
        bar.add(1)


def make_slots(optimizer: Any, variables: Sequence[tf.Variable]) -> None:
    """Makes the optimizer's variables now, which Keras leaves to its first step, so that they can be restored."""
    optimizer._create_all_weights(variables)
