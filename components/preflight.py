"""Preflight: what a run will cost and what may come of it, said before any budget is reserved.

    python -m components.preflight --examples=DIR --checked=DIR --method=gaussian_mixture --epsilon=3

It prints the number of examples, what the method takes on this machine in seconds and memory (measured on images of
noise), what the synthetic examples take on disk, and how much of a class the noise leaves; where that is hopeless, what
would not be. Last of all it says what the accounts of the examples would come to (docs/ledger.md). A run that would not
fit into memory, or that the training would refuse, ends here. docs/preflight.md says how each number comes about.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.artifacts import Input, Output, PreflightEstimate, PrivateExamples, SyntheticExamples
from components.component import ComponentError, beside, component
from components.outside import files_of

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from tfdpgen.data import Dataset
    from tfdpgen.privacy import PrivacyBudget, PrivacyUnit


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
    total_epsilon: Annotated[
        float, "what every example may cost in all runs together, where the ledger does not know them yet"
    ] = 10.0,
    publish_metrics_epsilon: Annotated[float, "what each test example pays for published accuracies; 0: none"] = 0.0,
) -> None:
    """Says what a run will cost and what may come of it, and refuses one that would not fit; spends nothing."""
    from tfdpgen.choices import check_is_another
    from tfdpgen.data import Splits, public_images
    from tfdpgen.methods.preflight import Facts, check
    from tfdpgen.methods.training import num_units, planned
    from tfdpgen.privacy import NoisyCounts, PrivacyBudget, PrivacyUnit

    private, budget = Splits.load(examples.path), PrivacyBudget(epsilon, delta)
    facts, units = Facts.of(private), num_units(method, private.train)
    del private  # what follows has no example at hand
    check_is_another(public_dataset, str(examples.facts.get("source", "")))
    public = public_images.asked_for(public_dataset, facts.spec.image_shape, data_dir)
    free = shutil.disk_usage(checked.path).free
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
    print(estimate.text, flush=True)
    if estimate.refusal:
        raise ComponentError(estimate.refusal)
    plan = planned(method, facts.spec, units, budget, labeller_share, label_distribution)[1]
    account = str(examples.facts.get("source") or examples.facts.get("dataset") or "")
    splits = Splits.load(examples.path)
    lines = _paid(ledger, splits.train, plan.event, budget, plan.unit, account, total_epsilon)
    if publish_metrics_epsilon and len(splits.test):
        budget = PrivacyBudget(publish_metrics_epsilon, delta)
        event = NoisyCounts().with_noise(budget.gaussian_noise_multiplier).event
        lines.append("Ledger: for the published accuracies, which test examples pay for:")
        lines += _paid(ledger, splits.test, event, budget, PrivacyUnit.EXAMPLE, account, total_epsilon)
    for line in lines if ledger else ():
        print(line, flush=True)
    (checked.path / "preflight.json").write_text(json.dumps(estimate.to_dict(), indent=2) + "\n")
    (checked.path / "preflight.txt").write_text(estimate.text + "\n")


def _paid(
    address: str,
    examples: Dataset,
    event: DpEvent,
    budget: PrivacyBudget,
    unit: PrivacyUnit,
    account: str,
    total_epsilon: float,
) -> list[str]:
    """What the ledger would say of this run, for people; no line where there is none.

    Raises:
      ComponentError: if the ledger would refuse the run, or cannot be used.
    """
    from tfdpgen.privacy import BudgetExceededError, Ledger, LedgerError, TamperedError

    if not address:
        return []
    is_there = "://" in address or Path(address).exists()
    with tempfile.TemporaryDirectory() as elsewhere:  # a ledger is made by what reserves in it
        place = address if is_there else str(Path(elsewhere, "ledger.sqlite"))
        try:
            ledger = Ledger(place, create=not is_there, account=account, total_epsilon=total_epsilon)
            known = [
                entry.name[:8]
                for entry in (ledger.reservations(examples) if is_there else ())
                if entry.event == event and entry.state != "void"
            ]
            kept = (
                f"Ledger: the same was reserved before [{', '.join(known)}]; where its outcome is kept, or it goes on, "
                "nothing is charged again"
            )
            try:
                lines = ledger.rehearse(examples, event, delta=budget.delta, unit=unit)
            except BudgetExceededError as error:
                if not known:
                    raise
                lines = [f"Ledger: another one would be refused. {error}"]
        except (BudgetExceededError, LedgerError, TamperedError, ValueError) as error:
            raise ComponentError(str(error)) from None
        return [line.replace(place, address) for line in [*lines, *([kept] if known else [])]]


if __name__ == "__main__":
    preflight.main()
