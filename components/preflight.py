"""Preflight: what a run will cost and what may come of it, said before any budget is reserved.

    python -m components.preflight --examples=DIR --checked=DIR --method=gaussian_mixture --epsilon=3

It prints the number of examples, what the method takes on this machine in seconds and memory (measured on images of
noise), what the synthetic examples take on disk, and how much of a class the noise leaves; where that is hopeless, what
would not be. A run that would not fit into memory, or that the training would refuse, ends here. docs/preflight.md says
how each number comes about.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.artifacts import Input, Output, PreflightEstimate, PrivateExamples, SyntheticExamples
from components.component import ComponentError, beside, component
from components.outside import files_of

if TYPE_CHECKING:
    from tfdpgen.data import Dataset


@beside(reads=lambda *, public_dataset, data_dir, **_: files_of(public_dataset, data_dir=data_dir))
@component
def preflight(
    examples: Input[PrivateExamples],
    checked: Output[PreflightEstimate],
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
    label_distribution: Annotated[str, "shares of the classes: balanced, or private, from noisy counts"] = "balanced",
    public_dataset: Annotated[str, "public images that the training learns from; empty: the method's default"] = "",
    data_dir: Annotated[str, "where TFDS keeps public data sets; empty: TFDS's default"] = "",
    augment: Annotated[bool, "whether as many augmented examples come beside them, without a labeller too"] = False,
    num_synthetic: Annotated[int, "number of plain synthetic examples that will be asked for"] = 6000,
    ledger: Annotated[str, "file or database address that keeps what was spent on whose examples; empty: none"] = "",
) -> None:
    """Says what a run will cost and what may come of it, and refuses one that would not fit; spends nothing."""
    from tfdpgen.choices import check_is_another
    from tfdpgen.data import Splits, public_images
    from tfdpgen.methods.preflight import Facts, check
    from tfdpgen.privacy import PrivacyBudget

    private = Splits.load(examples.path)
    spent = _spent(ledger, private.train)
    facts = Facts.of(private)
    del private  # what follows has no example at hand
    check_is_another(public_dataset, str(examples.facts.get("source", "")))
    public = public_images.asked_for(public_dataset, facts.spec.image_shape, data_dir)
    free = shutil.disk_usage(checked.path).free
    budget = PrivacyBudget(epsilon, delta)
    estimate = check(
        facts,
        method,
        budget,
        num_synthetic=num_synthetic,
        expected_bytes=SyntheticExamples.expected_bytes,
        labeller_share=labeller_share,
        label_distribution=label_distribution,
        public_images=public,
        augment=augment,
        disk_there=free,
    )
    print("\n".join([estimate.text, *spent]), flush=True)
    if estimate.refusal:
        raise ComponentError(estimate.refusal)
    (checked.path / "preflight.json").write_text(json.dumps(estimate.to_dict(), indent=2) + "\n")
    (checked.path / "preflight.txt").write_text(estimate.text + "\n")


def _spent(address: str, examples: Dataset) -> list[str]:
    """What the accounts of these examples have come to, a line each; nothing where no ledger knows them.

    Raises:
      ComponentError: if the ledger cannot be used.
    """
    from tfdpgen.privacy import Ledger, LedgerError

    if not address or ("://" not in address and not Path(address).exists()):
        return []
    try:
        ledger = Ledger(address, create=False)
        return [
            f"Ledger: of the account {account.name!r} every {account.unit} may cost epsilon {account.total.epsilon:g} "
            f"at delta {account.total.delta:g} in all runs together; these have come to {account.spent:.4g} in "
            f"{account.runs} run{'s' * (account.runs != 1)}, and one more of about "
            f"{ledger.fitting(account.name):.3g} fits"
            for account in ledger.standings(examples)
        ]
    except LedgerError as error:
        raise ComponentError(str(error)) from None


if __name__ == "__main__":
    preflight.main()
