"""Audit: what epsilon canaries refute, beside the one that is claimed.

    python -m components.audit --examples=DIR --audited=DIR --canaries=1000 --method=gaussian_mixture --epsilon=3
    python -m components.audit --examples=DIR --audited=DIR --canaries=50000 --adversary=white_box

It trains a model of its own and drops it; the released one has never seen a canary. `white_box` trains on canaries
alone, which are public, and reserves nothing. `black_box` trains on the private examples and canaries: nothing of it is
released, so no ledger is told, and that is right for as long as its metrics stay internal, as they are marked.
"""

from __future__ import annotations

import json
from typing import Annotated

from components.artifacts import AuditMetrics, Input, Output, PrivateExamples
from components.component import ComponentError, component

ADVERSARIES = ("black_box", "white_box")


@component
def audit(
    examples: Input[PrivateExamples],
    audited: Output[AuditMetrics],
    *,
    canaries: Annotated[int, "examples that are planted, each by a fair coin; 0: no audit"] = 0,
    adversary: Annotated[
        str,
        "black_box: sees samples of the method, trained once more; white_box: sees each update of the optimizer",
    ] = "black_box",
    method: Annotated[str, "the method that black_box trains"] = "gaussian_mixture",
    labeller_share: Annotated[float, "share of the budget that trains its labeller; 0: there is none"] = 0.0,
    label_distribution: Annotated[str, "that of the audited training"] = "balanced",
    public_dataset: Annotated[str, "public images that the training learns from; empty: the method's default"] = "",
    data_dir: Annotated[str, "where TFDS keeps public data sets; empty: TFDS's default"] = "",
    epsilon: Annotated[float, "the claim: epsilon"] = 3.0,
    delta: Annotated[float, "the claim: delta"] = 1e-5,
    seed: Annotated[int, "seed of the canaries, and of the method"] = 0,
    insecure_reproducible: Annotated[bool, "seed coins and noise too"] = False,
) -> None:
    """Trains once more, with canaries, and says what epsilon their traces refute."""
    if adversary not in ADVERSARIES:
        raise ComponentError(f"`adversary` should be one of {', '.join(ADVERSARIES)}; got {adversary!r}.")
    metrics = {}
    if canaries:
        from tfdpgen.attacks.audit import audit_optimizer, audit_release, canary_plan
        from tfdpgen.data import Splits, public_images
        from tfdpgen.methods import train
        from tfdpgen.privacy import DPKerasAdam, NoiseSource, PrivacyBudget

        budget = PrivacyBudget(epsilon, delta)
        noise = NoiseSource.insecure(seed) if insecure_reproducible else NoiseSource()
        if adversary == "white_box":
            result = audit_optimizer(canary_plan(budget, canaries), delta, optimizer_class=DPKerasAdam, noise=noise)
        else:
            private = Splits.load(examples.path).train.in_memory()
            public = public_images.asked_for(public_dataset, private.spec.image_shape, data_dir)
            result = audit_release(
                lambda chosen: train(
                    method,
                    chosen,
                    budget,
                    seed=seed,
                    insecure_reproducible=insecure_reproducible,
                    labeller_share=labeller_share,
                    label_distribution=label_distribution,
                    public_images=public,
                ),
                private,
                budget,
                canaries=canaries,
                method=method,
                seed=seed,
                noise=noise,
            )
        metrics = result.to_dict()
        print(f"audit: epsilon is at least {result.lower_bound:.3g} of {result.claimed_epsilon:.3g} that are claimed")
    (audited.path / "audit.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    audit.main()
