"""Evaluate: how useful the synthetic rows are in place of the private ones.

    python -m components.evaluate --examples=DIR --synthetic=DIR --utility=DIR

The figures are computed on private rows: they are internal, and no part of what the privacy budget covers. Of each
split at most 100,000 rows are used, so that data need not fit in memory.
"""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np

from components.artifacts import Input, Output, PrivateExamples, SyntheticExamples, UtilityFigures
from components.component import component

MOST_ROWS = 100_000
TEST_SHARE = 6  # one synthetic row in so many is tested on, as in MNIST with its 60,000 + 10,000 rows nearly


@component
def evaluate(
    examples: Input[PrivateExamples],
    synthetic: Input[SyntheticExamples],
    utility: Output[UtilityFigures],
    *,
    seed: Annotated[int, "seed of the classifiers"] = 0,
) -> None:
    """Trains classifiers on private and on synthetic rows and tests each on both: p1 to p4.

    Where there are enriched rows, `p2_enriched` is the accuracy on private rows of a classifier of their soft labels.
    """
    from tfdpgen.data import Splits
    from tfdpgen.evaluation import accuracy, train_classifier, utility_matrix

    splits, rows = Splits.load(examples.path), synthetic.load()
    num_train = len(rows) - len(rows) // TEST_SHARE  # labels cycle, so that both parts are balanced
    test = splits.test.in_memory(MOST_ROWS)
    matrix = utility_matrix(
        splits.train.in_memory(MOST_ROWS),
        test,
        rows.take(np.arange(num_train)),
        rows.take(np.arange(num_train, len(rows))),
        seed=seed,
    )
    figures = matrix.to_dict()
    if (enriched := synthetic.load_enriched()) is not None:
        pupil = train_classifier(enriched[0], soft_labels=enriched[1], seed=seed)
        figures["p2_enriched"] = accuracy(pupil, test)
    (utility.path / "utility.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    evaluate.main()
