"""Train: the one step that spends privacy budget.

    python -m components.train --examples=DIR --release=DIR --networks=DIR --method=gaussian_mixture --epsilon=3

What leaves it is the release, which the budget covers: a generator and its privacy statement, and nothing else that was
computed from private examples. The networks that were trained beside the generator, a critic or an encoder, are kept
inside the trust boundary for the attacks.
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import TYPE_CHECKING, Annotated, Any

from components.artifacts import Input, Output, PrivateExamples, PrivateNetworks, TrainedRelease
from components.component import ComponentError, beside, component, run_note
from components.outside import files_of

if TYPE_CHECKING:
    from tfdpgen.data import Dataset
    from tfdpgen.privacy import Backup, Ledger


@beside(reads=lambda *, public_dataset, data_dir, **_: files_of(public_dataset, data_dir=data_dir))
@component
def train(
    examples: Input[PrivateExamples],
    release: Output[TrainedRelease],
    networks: Output[PrivateNetworks],
    *,
    method: Annotated[
        str,
        "the method: gaussian_mixture, dp_diffusion, c_vae, dp_gan, pate_gan, gs_wgan, fedavg_gan or latent_gaussian",
    ] = "gaussian_mixture",
    epsilon: Annotated[float, "privacy budget: epsilon of (epsilon, delta)-differential privacy"] = 3.0,
    delta: Annotated[float, "privacy budget: delta; has to be smaller than 1 / number of training examples"] = 1e-5,
    labeller_share: Annotated[
        float, "share of the budget that trains a private labeller of augmented examples; 0: there are none"
    ] = 0.0,
    label_distribution: Annotated[
        str,
        "shares of the classes in synthetic examples: balanced, or private, from noisy counts that a fiftieth of the "
        "budget buys",
    ] = "balanced",
    public_dataset: Annotated[
        str,
        "images to learn from for nothing, whose labels are not used: a folder, .npz or TFDS name, strokes, fonts or "
        "dead_leaves; empty: the method's default",
    ] = "",
    data_dir: Annotated[str, "where TFDS keeps public data sets; empty: TFDS's default"] = "",
    augment: Annotated[bool, "add as many augmented examples, transformed at random, without a labeller too"] = False,
    ledger: Annotated[str, "file or database address that keeps what was spent on whose examples; empty: none"] = "",
    total_epsilon: Annotated[
        float, "what every example may cost in all runs together, where the ledger does not know them yet"
    ] = 10.0,
    backup: Annotated[
        str,
        "folder that keeps the training's progress, from which the same training goes on if it was killed; empty: none",
    ] = "",
    seed: Annotated[
        int,
        "seed of initial weights and public draws (fakes, k-means); never of the privacy noise, the Poisson samples or "
        "what is drawn for a private example (latents, noise levels, views, dropout masks)",
    ] = 0,
    insecure_reproducible: Annotated[
        bool,
        "seed the noise, the Poisson samples and the draws for private examples too; the outputs are marked as not for "
        "release",
    ] = False,
    dry_run: Annotated[bool, "refuse to train, so that a pipeline ends before anything is reserved"] = False,
) -> None:
    """Trains a method under differential privacy."""
    from tfdpgen import methods
    from tfdpgen.choices import check_is_another
    from tfdpgen.data import Splits, public_images
    from tfdpgen.privacy import Backup, Ledger, PrivacyBudget
    from tfdpgen.release import Augmentation

    if dry_run:
        raise ComponentError("`dry_run` was set: nothing was reserved or trained. Leave it out to go on.")
    budget = PrivacyBudget(epsilon, delta)
    private = Splits.load(examples.path).train
    budget.check_num_examples(len(private))
    check_is_another(public_dataset, str(examples.facts.get("source", "")))
    public = public_images.asked_for(public_dataset, private.spec.image_shape, data_dir)
    name = str(examples.facts.get("source") or examples.facts.get("dataset") or "")
    note = run_note(release.run, release.path.parent)
    book = Ledger(ledger, account=name, total_epsilon=total_epsilon, say=_say, note=note) if ledger else None
    training = {"training": uuid.uuid4().hex}  # tells which two belong together
    release.facts, networks.facts = dict(training), dict(training)
    # Until the outputs have their names, so that what kills this before then loses nothing that was bought.
    kept = release.lasting.enter_context(Backup(backup)) if backup else None
    trained: dict[str, Any] = {}
    made = methods.train(
        method,
        private,
        budget,
        seed=seed,
        insecure_reproducible=insecure_reproducible,
        ledger=book,
        labeller_share=labeller_share,
        label_distribution=label_distribution,
        augmentation=Augmentation() if augment else None,
        public_images=public,
        backup=kept,
        networks=trained,
    )
    if book is not None and kept is not None and kept.reservation is not None:
        confirm(book, kept.reservation)
    made.save(release.path)
    release.facts |= {"privacy": made.statement.summary()}
    networks.save(trained)
    if book is not None:  # what an account has come to tells who was in other runs, and stays inside
        networks.facts |= {"ledger": _standing(book, private, kept)}


def confirm(ledger: Ledger, reservation: str) -> None:
    """Has the ledger know, before anything comes out, that this has run: then nobody can say that it has not.

    Raises:
      ComponentError: if it cannot take that down, or its owner has said meanwhile that nothing has run; the backup is
        kept then.
    """
    from tfdpgen.privacy import LedgerError

    try:
        ledger.confirm(reservation)
    except (LedgerError, ValueError) as error:
        raise ComponentError(
            f"The training has ended, and the ledger does not take that down, so that nothing comes out. {error} The "
            "backup keeps what was bought: the same command goes on from there."
        ) from None


def _standing(ledger: Ledger, examples: Dataset, backup: Backup | None) -> dict[str, Any]:
    """The reservation of this training, and what all runs on the accounts of its examples have come to with it."""
    from tfdpgen.privacy import LedgerError

    try:
        accounts = [dataclasses.asdict(standing) for standing in ledger.standings(examples)]
    except LedgerError as error:  # the release is there, and lacks only a note
        print(f"What all runs have come to could not be read, and the report will not say it. {error}", flush=True)
        accounts = []
    reservation = backup.reservation if backup is not None else None
    return {"address": ledger.address, "reservation": reservation, "accounts": accounts}


def _say(line: str) -> None:
    """Prints it at once."""
    print(line, flush=True)


if __name__ == "__main__":
    train.main()
