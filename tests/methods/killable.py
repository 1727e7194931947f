"""Trainings that are killed: `python -m tests.methods.killable FOLDER VARIANT [MOMENT ...]`.

One process after the other trains, or goes on, in FOLDER: one for each moment, at which it sends SIGKILL to itself, and
a last one that finishes and saves the release. A moment is a line of the log, or `LINE*N` for the N-th that starts with
LINE in its process, or `wait*SECONDS` for a time after its start, at which it is killed from outside.

FOLDER/log outlives a SIGKILL. Its lines:

    key DIGEST               noise, samples or the randomness of examples get this key
    public                   the autoencoder of public images is trained
    making ENTRY             the backup is about to hold this entry
    made ENTRY               it holds it
    output NAME DIGEST       a method gets this output of a one-shot mechanism
    step NAME NUMBER         a step, of DP-SGD or of networks on groups, is about to be executed
    killed                   a process has been killed, at its moment
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork

import numpy as np
from sklearn.datasets import load_digits

from tfdpgen.data import DataSpec, LabeledDataset, public_images
from tfdpgen.features.autoencoder import Autoencoder
from tfdpgen.methods import CVAE, DPGAN, DPDiffusion, GaussianMixture, LatentGaussian, train
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.methods.gs_wgan import GSWGAN
from tfdpgen.methods.pate_gan import PATEGAN
from tfdpgen.privacy import DPSGD, Backup, ClassMeans, GroupStatistics, Ledger, NoisyCounts, PrivacyBudget, accounting
from tfdpgen.privacy.mechanisms.base import GroupSum
from tfdpgen.release import labeller

EVERY = 4  # steps in a block
BUDGET = PrivacyBudget(3.0, 1e-4)
LABELLER = ", labeller"  # of a variant's name
_MIXTURE = GaussianMixture(6, components=2)
VARIANTS: dict[str, Any] = {
    "gaussian_mixture": _MIXTURE,
    "gaussian_mixture" + LABELLER: _MIXTURE,
    "c_vae": CVAE(_MIXTURE, latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=10, dp_sgd_share=0.3),
    "dp_gan": DPGAN(latent_dim=4, generator_filters=8, critic_filters=4, expected_batch_size=10, steps=10),
    "dp_diffusion": DPDiffusion(
        _MIXTURE, filters=2, expected_batch_size=10, steps=10, sampling_steps=2, public_steps=2
    ),
    "latent_gaussian": LatentGaussian(3, filters=2, public_steps=3),
    "gs_wgan": GSWGAN(
        4, generator_filters=8, num_coefficients=10, hidden_units=6, num_critics=8, expected_critics=3, steps=10
    ),
    "fedavg_gan": FedAvgGAN(
        4, generator_filters=8, num_coefficients=10, hidden_units=6, expected_users=5, rounds=10, generator_steps=1
    ),
    "pate_gan": PATEGAN(3, latent_dim=4, hidden_units=8, num_coefficients=10, rounds=10, queries=2, steps=1),
}


def digits() -> LabeledDataset:
    """80 of them, of 20 users."""
    data = load_digits()
    images = (data.images[:80, ..., None] * 15.9375).round().astype(np.uint8)
    return LabeledDataset(images, data.target[:80].astype(np.int64), DataSpec((8, 8, 1), 10), np.arange(80) % 20)


def arguments(variant: str) -> dict[str, Any]:
    """What `train` is called with."""
    share = 0.3 if variant.endswith(LABELLER) else 0.0
    return {"method": VARIANTS[variant], "budget": BUDGET, "dataset": digits(), "labeller_share": share, "verbose": 0}


def make_small(set_attribute: Callable[[Any, str, Any], object]) -> None:
    """Has labellers of few steps, lets strokes suit images of 8x8 pixels, and skips the search for the least noise.

    That takes longer than all the rest; the noise is more than enough instead.
    """

    def enough(make_event: Any, budget: PrivacyBudget, accountant: str) -> float:
        return 30.0 / budget.epsilon

    set_attribute(accounting, "calibrate_noise_multiplier", enough)
    set_attribute(labeller, "_STEPS", 10)
    set_attribute(public_images, "check_public_images", lambda *_: None)
    set_attribute(public_images, "_MOST_IMAGES", 100)


def watch(note: Callable[[str], object], set_attribute: Callable[[Any, str, Any], object]) -> None:
    """Notes what happens in a training; see the top of this file."""
    random_bytes, batches, samples = os.urandom, DPSGD.batches, GroupSum.samples
    publish, public = Backup._publish, Autoencoder.train

    def urandom(count: int) -> bytes:
        key = random_bytes(count)
        if sys._getframe(1).f_globals["__name__"] == "tfdpgen.privacy.noise":
            note(f"key {_digest(key)}")
        return key

    def noted_batches(self: DPSGD, noise: Any = None, first_step: int = 0, **named: Any) -> Iterator[Any]:
        for step, batch in enumerate(batches(self, noise, first_step, **named), first_step):
            note(f"step {self.name} {step}")
            yield batch

    def noted_samples(self: GroupSum, rng: Any, first_step: int = 0) -> Iterator[Any]:
        for step, sampled in enumerate(samples(self, rng, first_step), first_step):
            note(f"step {self.name} {step}")
            yield sampled

    def noted_publish(self: Backup, name: str, write: Any) -> Path:
        note(f"making {name}")
        path = publish(self, name, write)
        note(f"made {name}")
        return path

    def noted_public(self: Autoencoder, *args: Any, **named: Any) -> None:
        note("public")
        public(self, *args, **named)

    def noted_result(result: Any) -> Any:
        def noted(self: Any, noised: Any) -> Any:
            note(f"output {self.name} {_digest(noised.tobytes())}")
            return result(self, noised)

        return noted

    set_attribute(os, "urandom", urandom)
    set_attribute(DPSGD, "batches", noted_batches)
    set_attribute(GroupSum, "samples", noted_samples)
    set_attribute(Backup, "_publish", noted_publish)
    set_attribute(Autoencoder, "train", noted_public)
    for mechanism in (ClassMeans, GroupStatistics, NoisyCounts):
        set_attribute(mechanism, "result", noted_result(mechanism.result))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


def _attempt(folder: Path, variant: str, moment: str) -> None:
    """Trains, or goes on, until the moment comes; without one it saves the release."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line_of_death, _, count = moment.partition("*")
    seen: Counter[bool] = Counter()

    def note(line: str) -> None:
        os.write(log, f"{line}\n".encode())
        seen[bool(line_of_death) and line.startswith(line_of_death)] += 1
        if seen[True] == int(count or 1) and line_of_death != "wait":
            os.kill(os.getpid(), signal.SIGKILL)

    watch(note, setattr)
    with Backup(folder / "backup", every=EVERY) as backup:
        release = train(**arguments(variant), ledger=Ledger(folder / "ledger.sqlite"), backup=backup)
        release.save(folder / "release")


def main(folder: Path, variant: str, moments: list[str]) -> int:
    """Runs one process after the other; returns the exit code of the last."""
    make_small(setattr)
    for moment in [*moments, ""]:
        process = os.fork()  # for speed: importing takes longer than training. No library has made threads yet
        if not process:
            _attempt(folder, variant, moment)
            os._exit(0)
        if moment.startswith("wait"):
            time.sleep(float(moment.partition("*")[2]))
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code != -signal.SIGKILL:
            return code
        with open(folder / "log", "a") as log:
            log.write("killed\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
