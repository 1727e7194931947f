"""Writes tests/golden/audits.csv: the epsilons that jax_privacy's auditing concludes, for our own to agree with.

    python3.11 -m venv ../jax && ../jax/bin/pip install jax_privacy==2.0.0
    ../jax/bin/python scripts/golden_audits.py       # seconds

It runs with a Python of its own, since jax_privacy needs a newer NumPy than the project's TensorFlow. Each case is a
threshold that was fixed beforehand, with so many included and excluded canaries above it. Columns:

- one_run: `CanaryScoreAuditor.epsilon_one_run` (Steinke et al. 2023), one-sided: all guesses are "included";
- one_run_fdp: `epsilon_one_run_fdp` (Mahloujifar et al. 2024) with the trade-off of a Gaussian mechanism;
- clopper_pearson: `epsilon_clopper_pearson` (Nasr et al. 2021).
"""

from __future__ import annotations

import csv
import itertools
import pathlib

import numpy as np

_GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "audits.csv"

# included canaries, excluded canaries, included above the threshold, excluded above the threshold
_COUNTS = (
    (50, 50, 50, 0),
    (50, 50, 30, 10),
    (50, 50, 20, 20),
    (50, 50, 5, 0),
    (480, 520, 60, 2),
    (480, 520, 200, 60),
    (480, 520, 400, 390),
    (2_500, 2_500, 150, 9),
    (2_500, 2_500, 1_200, 0),
    (2_500, 2_500, 900, 300),
    (10_020, 9_980, 160, 8),
    (10_020, 9_980, 4_000, 2_100),
    (50_000, 50_000, 700, 38),
    (50_000, 50_000, 700, 0),
)
_DELTAS = (1e-9, 1e-5, 1e-3)
_SIGNIFICANCES = (0.05, 0.01)


def main() -> None:
    """Writes the table."""
    from jax_privacy import auditing  # pyright: ignore[reportMissingImports]

    threshold = auditing.Explicit(0.5)
    with _GOLDEN.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ("one_run", "one_run_fdp", "clopper_pearson")
        counts_names = ("included", "excluded", "included_above", "excluded_above")
        writer.writerow([*counts_names, "delta", "significance", *names])
        for counts, delta, significance in itertools.product(_COUNTS, _DELTAS, _SIGNIFICANCES):
            included, excluded, included_above, excluded_above = counts
            auditor = auditing.CanaryScoreAuditor(
                (np.arange(included) < included_above).astype(float),
                (np.arange(excluded) < excluded_above).astype(float),
            )
            epsilons = (
                getattr(auditor, f"epsilon_{name}")(significance, delta, threshold_strategy=threshold) for name in names
            )
            writer.writerow([*counts, delta, significance, *(f"{float(epsilon):.8g}" for epsilon in epsilons)])


if __name__ == "__main__":
    main()
