"""What every method is: a network, a plan, and a training that runs exactly that plan.

    release = train("c_vae", dataset, PrivacyBudget(epsilon=3.0, delta=1e-5), seed=0)

`train` is the one way from private rows to a `Release`. It builds and checks the networks, calibrates the plan,
reserves the whole cost in the ledger, and only then hands the rows to the method. `train_with_networks` does the
same and gives auditors the method's `networks` beside the release.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.privacy import DPSGD, Backup, Ledger, Mechanism, NoiseSource, PrivacyBudget, compose, dataset_id
from tfdpgen.privacy.accounting import event_to_dict, make_statement
from tfdpgen.release import Augmentation, Labeller, Release

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
    priors: ClassVar[tuple[str, ...]] = ()  # public assumptions about the data that the statement declares

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: Any) -> None:
        super().__init__(name=self.method)
        self.spec = spec
        self.num_examples = num_examples
        self.seed = seed
        self.preset = preset
        self.labeller: Labeller | None = None
        self.augmentation = Augmentation()

    @abc.abstractmethod
    def plan(self) -> DPSGD | None:
        """The training's facts, without its noise, which is calibrated to what `alongside` leaves; None without one."""

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        """The mechanisms that `prepare` will run besides the training, as a function of the whole budget."""
        return ()

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        """Runs the mechanisms of `alongside`, once each, and starts networks and labeller from what they give."""

    @abc.abstractmethod
    def learn(
        self, dataset: Dataset, plan: DPSGD | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        """Runs the plan by `run_plan`, once, and returns the generator.

        Args:
          dataset: the private rows.
          plan: calibrated; None where there is none.
          noise: where every draw that privacy rests on comes from.
          verbose: 1 shows a progress bar, without private figures.
          backup: where the progress is kept. What `prepare` brought has to be in the state that is given to it.
        """

    def networks(self) -> dict[str, tf.keras.Model]:
        """What else was trained privately and may be shown to auditors, by name; never part of a Release.

        Each network is a function of what DP-SGD and the mechanisms of `alongside` gave, so that epsilon bounds what an
        attack on it finds. Asked for after `learn`. Names and signatures that attacks know:

        - "critic": images float32 [n, h, w, c] in [0, 1] -> scores [n, num_classes], one for each label, or [n, parts],
          one for each part of the image, where the critic sees no label and parts are not as many as classes.
        - "encoder": [images float32 in [0, 1], labels int64 [n]] -> mean, log variance float32 [n, latent_dim].
        - "decoder": [latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c] in [0, 1].
        """
        return {}


class Trained(NamedTuple):
    """What `train_with_networks` gives.

    Attributes:
      release: what may leave the trust boundary.
      networks: the method's `networks`, which stay inside.
    """

    release: Release
    networks: dict[str, tf.keras.Model]


def register(cls: _Class) -> _Class:
    """Class decorator: makes a method known under its `method`."""
    _REGISTRY[cls.method] = cls
    return cls


def method_names() -> tuple[str, ...]:
    """The registered methods' names."""
    return tuple(sorted(_REGISTRY))


def method_class(name: str) -> type[Synthesizer]:
    """The method of that name.

    Raises:
      ValueError: if there is none.
    """
    if name not in _REGISTRY:
        raise ValueError(f"`method` should be one of {', '.join(method_names())}; got {name!r}.")
    return _REGISTRY[name]


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
    """Trains a method on private rows and returns what may be released.

    Args:
      name: one of `method_names()`.
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
    return train_with_networks(
        name,
        dataset,
        budget,
        seed=seed,
        insecure_reproducible=insecure_reproducible,
        ledger=ledger,
        limit=limit,
        preset=preset,
        backup=backup,
        verbose=verbose,
    ).release


def train_with_networks(
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
) -> Trained:
    """Does what `train` does, and gives the networks that auditors may attack beside the release.

    Arguments and errors are those of `train`.
    """
    kind = method_class(name)
    if limit is not None and ledger is None:
        raise ValueError("`limit` needs a `ledger` that knows what was spent before.")
    if backup is not None and insecure_reproducible:
        raise ValueError(
            "`backup` cannot go with `insecure_reproducible`: a resumed run would add the same seeded noise again."
        )
    budget.check_num_examples(len(dataset))
    trained = kind(dataset.spec, len(dataset), seed, preset)
    alongside = tuple(trained.alongside(budget))
    plan = trained.plan()
    plan = plan.calibrate(budget, alongside) if plan is not None else None
    noise = NoiseSource.insecure(seed) if insecure_reproducible else NoiseSource()
    mechanisms = [*alongside, *([plan] if plan is not None else [])]
    event = compose(mechanisms)
    statement = make_statement(
        mechanisms,
        len(dataset),
        budget.delta,
        noise.description,
        training=next((part for part in reversed(mechanisms) if isinstance(part, DPSGD)), None),
        priors=trained.priors,
    )
    if statement.epsilon > budget.epsilon:
        raise ValueError(f"`alongside` of {name} costs {statement.epsilon:.4g}, more than epsilon={budget.epsilon:g}.")
    rows = dataset_id(dataset) if ledger is not None or backup is not None else ""
    training = {
        "method": name,
        "preset": dataclasses.asdict(trained.preset),
        "seed": seed,
        "delta": budget.delta,
        "plan": dataclasses.asdict(plan) if plan is not None else None,
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
        trained.prepare(dataset, alongside, noise, verbose)
    generator = trained.learn(dataset, plan, noise, verbose, backup)
    release = Release(generator, dataset.spec, event, statement, name, trained.labeller, trained.augmentation)
    return Trained(release, trained.networks())
