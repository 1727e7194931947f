"""Attack: asks attackers to tell private rows from others, with nothing but the release in their hands.

    python -m components.attack --examples=DIR --release=DIR --attacks=DIR

The figures are computed on private rows: they are internal, and no part of what the privacy budget covers.
"""

from __future__ import annotations

import json
from typing import Annotated

from components.artifacts import AttackFigures, Input, Output, PrivateExamples, TrainedRelease
from components.component import component


@component
def attack(
    examples: Input[PrivateExamples],
    release: Input[TrainedRelease],
    attacks: Output[AttackFigures],
    *,
    repetitions: Annotated[int, "how often each attack is repeated; intervals narrow with it"] = 5,
    num_candidates: Annotated[int, "rows of each kind that an attack is asked about"] = 100,
    seed: Annotated[int, "seed of the attacks"] = 0,
) -> None:
    """Measures how well attacks tell private rows from noise and from rows that were never trained on."""
    from tfdpgen.attacks import run_attacks
    from tfdpgen.data import Splits
    from tfdpgen.synthesizers import Release

    splits = Splits.load(examples.path)
    results = run_attacks(
        Release.load(release.path),
        splits.train,
        splits.holdout,
        repetitions=repetitions,
        num_candidates=num_candidates,
        seed=seed,
        verbose=1,
    )
    figures = {name: result.to_dict() for name, result in results.items()}
    (attacks.path / "attacks.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    attack.main()
