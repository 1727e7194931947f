"""Writes tests/golden/fidelity.npz: what published packages say of shared features, for our measures to agree with.

    python -m venv reference
    reference/bin/pip install prdc pytorch-fid vendi-score
    reference/bin/python scripts/golden_fidelity.py

These packages need PyTorch, which has no place beside the project's own dependencies; so this script imports nothing of
tfdpgen and runs in an environment of its own. Each case is a pair of small sets of features (real and generated,
float32 [n, d] and [m, d]), with

- fid: `calculate_frechet_distance` of pytorch-fid, of means and covariances;
- precision and recall (3 neighbours), density and coverage (5 neighbours): prdc, by the authors of the latter two;
- vendi_score: of the generated features, by its authors' package.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from prdc import compute_prdc  # pyright: ignore[reportMissingImports]
from pytorch_fid.fid_score import calculate_frechet_distance  # pyright: ignore[reportMissingImports]
from vendi_score import vendi  # pyright: ignore[reportMissingImports]

_GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "fidelity.npz"


def _cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Alike, shifted, narrower, of fewer modes, and of correlated features."""
    rng = np.random.default_rng(0)

    def normal(num_rows: int, features: int) -> np.ndarray:
        return rng.normal(size=(num_rows, features))

    mixing = normal(24, 24) / 5
    modes = 4 * normal(5, 12)
    pairs = [
        (normal(120, 8), normal(90, 8)),
        (normal(100, 6), normal(150, 6) + 0.5),
        (normal(110, 10), 0.4 * normal(110, 10)),
        (modes[rng.integers(5, size=140)] + normal(140, 12), modes[rng.integers(2, size=100)] + normal(100, 12)),
        (normal(160, 24) @ mixing, 0.8 * normal(130, 24) @ mixing + 0.1),
    ]
    return [(real.astype(np.float32), generated.astype(np.float32)) for real, generated in pairs]


def main() -> None:
    """Computes and writes all of it."""
    arrays: dict[str, Any] = {}
    for case, (real, generated) in enumerate(_cases()):
        first, second = real.astype(np.float64), generated.astype(np.float64)
        moments = [value for rows in (first, second) for value in (rows.mean(axis=0), np.cov(rows, rowvar=False))]
        near, wide = (compute_prdc(first, second, nearest_k=neighbours) for neighbours in (3, 5))
        arrays[f"real_{case}"], arrays[f"generated_{case}"] = real, generated
        arrays[f"figures_{case}"] = np.array(
            [
                calculate_frechet_distance(*moments),
                near["precision"],
                near["recall"],
                wide["density"],
                wide["coverage"],
                vendi.score_X(second, normalize=True),
            ]
        )
        print(case, arrays[f"figures_{case}"])
    np.savez_compressed(_GOLDEN, **arrays)


if __name__ == "__main__":
    main()
