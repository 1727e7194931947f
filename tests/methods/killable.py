"""A training to be killed: `python killable.py FOLDER METHOD STEPS EVERY`.

It appends to FOLDER/log one line for each step before it is executed, `step N`, and one for each key that noise or
draws get, `key DIGEST`; such lines outlive a SIGKILL.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.datasets import load_digits

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import CVAEPreset, DPGANPreset, train
from tfdpgen.privacy import DPSGD, Backup, Ledger, PrivacyBudget

MOVES: dict[str, Any] = {"noisy_spread": 0.7, "shift": 0.1, "lean": 0.2}
SKETCHES = CVAEPreset(latent_dim=3, hidden_units=(16,), expected_batch_size=20, steps=1, num_waves=6, **MOVES)
PRESETS: dict[str, Any] = {
    "c_vae": CVAEPreset(latent_dim=3, hidden_units=(16,), expected_batch_size=20, steps=1, **MOVES),
    "dp_gan": DPGANPreset(SKETCHES, generator_filters=8, critic_filters=4, expected_batch_size=20, steps=1, fakes=8),
}
BUDGET = PrivacyBudget(3.0, 1e-4)


def private_rows() -> LabeledDataset:
    """A part of the digits."""
    data = load_digits()
    images = (data.images[:200, ..., None] * 15.9375).round().astype(np.uint8)
    return LabeledDataset(images, data.target[:200].astype(np.int64), DataSpec((8, 8, 1), 10))


def main(folder: Path, method: str, steps: int, every: int) -> None:
    """Trains, or goes on, and saves the release."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(line: str) -> None:
        os.write(log, f"{line}\n".encode())

    random_bytes, batches = os.urandom, DPSGD.batches

    def urandom(count: int) -> bytes:
        key = random_bytes(count)
        note(f"key {hashlib.sha256(key).hexdigest()}")
        return key

    def noted_batches(self: DPSGD, noise: Any = None, first_step: int = 0) -> Any:
        for step, batch in enumerate(batches(self, noise, first_step), first_step):
            note(f"step {step}")
            yield batch

    os.urandom, DPSGD.batches = urandom, noted_batches
    preset = dataclasses.replace(PRESETS[method], steps=steps)
    with Backup(folder / "backup", every=every) as backup:
        ledger = Ledger(folder / "ledger.sqlite")
        release = train(method, private_rows(), BUDGET, preset=preset, ledger=ledger, backup=backup, verbose=0)
        release.save(folder / "release")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
