"""How long a ledger takes, and how much memory, where a data set has a million examples.

    python benchmarks/ledger.py                              # an SQLite file
    python benchmarks/ledger.py --ledger=postgresql://host/database --num_examples=1000000

The examples are made while they are read, so that the memory is the ledger's own. The runs: open an account; reserve
for all; for a random half, which splits them; for all again; what is left; and a run that is refused. A run of its own
should start with a new ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from tfdpgen.data import DataSpec
from tfdpgen.data.dataset import Dataset
from tfdpgen.machine import PeakMemory, memory_in_use
from tfdpgen.privacy import BudgetExceededError, Ledger, PrivacyBudget
from tfdpgen.privacy.accounting import poisson_gaussian_event

DELTA = 1e-8
_BEFORE = memory_in_use()  # of Python and the libraries


class Made(Dataset):
    """Images that are made when they are read: noise, the same each time."""

    def __init__(self, positions: np.ndarray) -> None:
        self.spec, self._positions = DataSpec((28, 28, 1), 10), positions

    def __len__(self) -> int:
        return len(self._positions)

    def examples(self, positions):
        chosen = self._positions[np.asarray(positions)]
        images = np.zeros((len(chosen), 784), np.uint8)
        images[:, :8] = np.frombuffer(chosen.astype(np.int64).tobytes(), np.uint8).reshape(-1, 8)
        return images.reshape(-1, 28, 28, 1), chosen % 10

    def take(self, positions):
        return Made(self._positions[np.asarray(positions)])


@contextlib.contextmanager
def measured(what: str) -> Iterator[None]:
    """Prints seconds, and the most memory of this process above what it had at the start of the script."""
    began = time.monotonic()
    with PeakMemory() as peak:
        yield
    print(f"{what:32} {time.monotonic() - began:6.1f} s {(peak.bytes - _BEFORE) / 2**20:7.0f} MiB", flush=True)


def main() -> None:
    """Prints a line for each call."""
    parser = argparse.ArgumentParser(description="Times a ledger of many examples.")
    parser.add_argument("--ledger", default="", help="path or address of a new ledger (default: a temporary file)")
    parser.add_argument("--num_examples", type=int, default=1_000_000)
    flags = parser.parse_args()
    event = poisson_gaussian_event(1e-3, 1.0, 2000)
    data = Made(np.arange(flags.num_examples))
    half = data.take(np.sort(np.random.default_rng(0).permutation(flags.num_examples)[: flags.num_examples // 2]))
    with tempfile.TemporaryDirectory() as folder:
        path = flags.ledger or f"{folder}/ledger.sqlite"
        ledger = Ledger(path, account="scans")
        with measured("open"):
            ledger.open(data, PrivacyBudget(3.0, DELTA), name="scans")
        with measured("reserve, all"):
            ledger.reserve(data, event, delta=DELTA)
        with measured("reserve, a random half"):
            ledger.reserve(half, event, delta=DELTA)
        with measured("reserve, all again"):
            ledger.reserve(data, event, delta=DELTA)
        with measured("status"):
            (account,) = ledger.standings()
        with measured("refused"), contextlib.suppress(BudgetExceededError):
            ledger.reserve(data, poisson_gaussian_event(1e-3, 0.5, 20_000), delta=DELTA)
        with measured("verify"):
            ledger.verify()
        print(f"{account.num_examples:,} examples; epsilon {account.spent:.3f} of {account.total.epsilon:g}")
        if not flags.ledger:
            print(f"The file: {Path(path).stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
