"""Training: the one way from private examples to a Release.

    release = train("gaussian_mixture", dataset, PrivacyBudget(epsilon=3.0, delta=1e-5))
    release = train(CVAE(...), dataset, budget, labeller_share=0.3, ledger=Ledger("ledger.sqlite"), limit=budget)

`train` makes the method's plan, adds the labeller's share to it, calibrates the whole against the budget, and opens a
session that reserves the cost before the first access. Only the session holds the examples.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from tfdpgen.choices import check_label_distribution, check_labeller_share
from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.data.public_images import PublicImages, load_public_images
from tfdpgen.methods.method import Fitted, Method, method_class, method_names
from tfdpgen.privacy import remote
from tfdpgen.privacy.backup import Backup
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.ledger import Ledger, LedgerError
from tfdpgen.privacy.mechanisms.noisy_counts import LabelCounts
from tfdpgen.privacy.noise import NoiseSource
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.remote import RemoteUsers
from tfdpgen.privacy.session import PrivateSession, num_users
from tfdpgen.release import Augmentation, Release
from tfdpgen.release.labeller import Labeller, labeller_mechanism, prepare_labeller

_LABELLER, _LABEL_COUNTS = "labeller", "label_counts"  # keys of their mechanisms
_LABEL_COUNTS_SHARE = 0.02  # of mu squared: at epsilon 1 the noise of a count is 26


def train(
    method: str | Method,
    dataset: Dataset | RemoteUsers,
    budget: PrivacyBudget,
    *,
    seed: int = 0,
    insecure_reproducible: bool = False,
    ledger: Ledger | None = None,
    limit: PrivacyBudget | None = None,
    labeller_share: float = 0.0,
    label_distribution: str = "balanced",
    augmentation: Augmentation | None = None,
    public_images: PublicImages | None = None,
    backup: Backup | None = None,
    verbose: int = 1,
    networks: dict[str, tf.keras.Model] | None = None,
) -> Release:
    """Trains a method on private examples and returns what may be released.

    Args:
      method: one of `method_names()`, with the settings that suit the data; or a method with its settings.
      dataset: the private examples, or users who have them elsewhere, for a method that promises privacy to users.
      budget: what the release may cost each example at most.
      seed: of initial weights, of latents and labels of generated images, of k-means: of all that is public. Never of
        noise, of Poisson samples, or of latents, noise levels, views and dropout of private examples.
      insecure_reproducible: seeds noise, samples and randomness of examples as well; the release is then marked as not
        for release.
      ledger: where the cost is reserved before the first access.
      limit: the most that all reservations on these examples may cost; needs a ledger.
      labeller_share: share of the budget (of mu squared), in [0, 1), that trains a private classifier. With one,
        `Release.training_set` holds augmented images that it has labelled.
      label_distribution: "balanced", or "private": a fiftieth of the budget buys noisy counts of the labels, and
        `Release.labels` has their shares.
      augmentation: random affine maps, elastic distortions and stroke widths of as many other samples, which
        `Release.training_set` then holds too; by default `Augmentation()` with a labeller and none without one.
      public_images: what the method learns from before it asks for anything private, as `load_public_images` gives
        it; None: the method's own default, if it has one. The statement declares it.
      backup: keeps the progress, and goes on with what it keeps of the same training. Its cost is not reserved again
        where the ledger holds the reservation already.
      verbose: 1 shows progress, 0 nothing.
      networks: is given the method's `Fitted.networks`, by name, which auditors may attack; they stay inside the trust
        boundary.

    Raises:
      ValueError: for an unknown name, data that do not suit the method, a share or a choice out of range, public images
        of another shape or for a method that learns from none, a delta that is not smaller than 1 / num_examples, or a
        backup with seeded noise; nothing was spent then.
      BackupError: if `backup` keeps another training, or other examples; nothing was spent then.
      BudgetExceededError: if `limit` would be exceeded; nothing was spent then.
    """
    if not isinstance(dataset, (Dataset, RemoteUsers)):
        raise ValueError(
            f"`dataset` should be a Dataset, such as load_splits(...).train or LabeledDataset(images, labels, spec); "
            f"got a {type(dataset).__name__}."
        )
    if not isinstance(budget, PrivacyBudget):
        raise ValueError(f"`budget` should be a PrivacyBudget(epsilon, delta); got {budget!r}.")
    units = num_units(method, dataset)
    budget.check_num_examples(units, promises_to(method))
    chosen, plan = planned(method, dataset.spec, units, budget, labeller_share, label_distribution)
    public_images = public_images_of(chosen, public_images, dataset.spec)
    if public_images is not None:
        public_images.images()  # now, so that what cannot be read is refused while nothing has been spent
    if isinstance(dataset, RemoteUsers):
        dataset.announce(chosen)
    noise = NoiseSource.insecure(seed) if insecure_reproducible else NoiseSource()
    facts = {"method": chosen.name, "settings": dataclasses.asdict(chosen), "seed": seed}
    priors = chosen.priors
    if public_images is not None:
        facts["public_images"] = public_images.source
        priors = (
            *priors,
            f"images are like {public_images.source}, which {chosen.name} learnt from first; none of these is a "
            "private example or was made of one, which nothing has checked",
        )
    session = PrivateSession(
        dataset,
        plan,
        budget,
        noise=noise,
        ledger=ledger,
        limit=limit,
        backup=backup,
        facts=facts,
        purpose=f"train {chosen.name}",
        public_images=public_images,
    )
    statement = plan.statement(budget.delta, noise.description, priors)
    if isinstance(dataset, RemoteUsers):
        statement = dataclasses.replace(statement, assumptions=(*statement.assumptions, remote.ASSUMPTION))
    if labeller_share and augmentation is None:
        augmentation = Augmentation()
    learnt = fit(chosen, session, seed=seed, verbose=verbose)
    release = Release(
        learnt.fitted.generator,
        dataset.spec,
        plan.event,
        statement,
        chosen.name,
        learnt.labeller,
        augmentation,
        learnt.label_distribution,
    )
    if networks is not None:
        networks.update(learnt.fitted.networks)
    try:
        session.confirm()
    except LedgerError as error:  # what was bought is not lost for that
        logging.warning("The ledger was not told that the training has ended, and counts it just the same. %s", error)
    return release


def num_units(method: str | Method, dataset: Dataset | RemoteUsers) -> int:
    """How many examples there are, or users, where it is users that the method makes its promise to.

    Raises:
      ValueError: where users are unknown then, or examples are asked for that are elsewhere.
    """
    if isinstance(dataset, RemoteUsers):
        if promises_to(method) is not PrivacyUnit.USER:
            raise ValueError(
                f"`method` should promise privacy to users, as fedavg_gan does, where examples are elsewhere; "
                f"{method if isinstance(method, str) else method.name} reads them."
            )
        return dataset.num_users
    if promises_to(method) is PrivacyUnit.EXAMPLE:
        return len(dataset)
    if dataset.user_ids is None:
        raise ValueError(unknown_users(method))
    return num_users(dataset)


def promises_to(method: str | Method) -> PrivacyUnit:
    """Whose privacy a method promises."""
    return getattr(method_class(method) if isinstance(method, str) else method, "unit", PrivacyUnit.EXAMPLE)


def unknown_users(method: str | Method) -> str:
    """What to say where a method needs to know users, and nobody does."""
    return (
        f"`dataset` should say whose its examples are: {method if isinstance(method, str) else method.name} makes its "
        "promise to users. A table of files has a column for it (--user_column), an .npz an array user_ids, and "
        "--users=iid:20 makes users up, for experiments."
    )


def planned(
    method: str | Method,
    spec: DataSpec,
    num_examples: int,
    budget: PrivacyBudget,
    labeller_share: float = 0.0,
    label_distribution: str = "balanced",
) -> tuple[Any, PrivacyPlan]:
    """The method with its settings, and its calibrated plan, all shares in it; from public facts alone.

    Raises:
      ValueError: see `train`.
    """
    check_labeller_share(labeller_share)
    check_label_distribution(label_distribution)
    counts_share = _LABEL_COUNTS_SHARE if label_distribution == "private" else 0.0
    chosen: Any = method_class(method).for_data(spec, num_examples) if isinstance(method, str) else method
    if not (hasattr(chosen, "plan") and hasattr(chosen, "fit")):
        raise ValueError(
            f"`method` should be one of {', '.join(method_names())}, or a method with its settings; got {method!r}."
        )
    left = (1 - labeller_share) * (1 - counts_share)
    own = budget.share(left) if left < 1 else budget
    plan = chosen.plan(spec, num_examples, own)
    if plan.unit is PrivacyUnit.USER and (labeller_share or counts_share):
        what = "labeller_share" if labeller_share else "label_distribution"
        raise ValueError(
            f"`{what}` should be left out with {chosen.name}: it makes its promise to users, and a labeller and counts "
            "of labels are accounted for single examples."
        )
    if labeller_share:
        plan = plan.with_mechanism(_LABELLER, labeller_mechanism(num_examples), labeller_share)
    if counts_share:
        plan = plan.with_mechanism(_LABEL_COUNTS, LabelCounts(spec.num_classes), counts_share)
    return chosen, plan.calibrate(budget)


def public_images_of(chosen: Any, given: PublicImages | None, spec: DataSpec) -> PublicImages | None:
    """The public images that a method learns from: those that are given, or its default.

    Raises:
      ValueError: if it learns from none and some are given, or if they have another shape or cannot have this one.
    """
    default = getattr(chosen, "public_dataset", None)
    if given is None:
        return load_public_images(default, spec.image_shape) if default else None
    if default is None:
        raise ValueError(f"`public_images` should be None: {chosen.name} learns from no public images.")
    if given.image_shape != spec.image_shape:
        raise ValueError(
            f"`public_images` should have the shape of the private ones, {spec.image_shape}; got {given.image_shape}."
        )
    return given


class Learnt(NamedTuple):
    """What a plan of `planned` gave.

    Attributes:
      fitted: what the method has learnt.
      labeller: where the plan trains one.
      label_distribution: shares of the classes, [num_classes], where the plan counts them.
    """

    fitted: Fitted
    labeller: Labeller | None
    label_distribution: tuple[float, ...] | None


def fit(chosen: Any, session: PrivateSession, *, seed: int, verbose: int) -> Learnt:
    """Carries out a plan of `planned`."""
    training = prepare_labeller(session, _LABELLER) if _LABELLER in session.plan.mechanisms else None
    fitted = chosen.fit(session, seed=seed, verbose=verbose)
    if not isinstance(fitted, Fitted):
        raise ValueError(
            f"`fit` of {chosen.name} should return a Fitted(generator); it returned a {type(fitted).__name__}. The "
            "budget is spent: a training with a backup goes on from there once `fit` is corrected."
        )
    shares = None
    if _LABEL_COUNTS in session.plan.mechanisms:
        found = session.run(_LABEL_COUNTS, lambda images, labels: tf.zeros([tf.shape(labels)[0], 0]))
        shares = tuple(float(share) for share in found)
    return Learnt(fitted, training.run(verbose) if training is not None else None, shares)
