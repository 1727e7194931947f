"""LiRA: train the method many times, with each candidate and without it, and compare the release with both.

Carlini, Chien, Nasr, Song, Terzis and Tramer 2022, "Membership inference attacks from first principles", arXiv
2112.03570. A score alone says little: some examples are easy for any generator. Shadow trainings say what score this
candidate gets when it was in the training set and when it was not; both are taken for Gaussian. `lira_online_*` is the
log likelihood ratio of the two, `lira_offline_*` looks at the trainings without the candidate alone.

    shadows = ShadowConfig(num_shadows=32, method="gaussian_mixture, epsilon 1", processes=2, seed=0)
    results = run_shadow_attacks(release, splits.train, splits.holdout, train_fn, shadows, "shadows/")
    results["lira_online_gan_leaks"].tpr_at_1_percent_fpr

Any attack of one candidate may be what is compared: by default the distance to the nearest synthetic example of its
label, and the plain scores that critic or autoencoder give, where there are any. The attacker is the one that
differential privacy is about: it knows all training examples but the candidates, and half of the candidates belong to
each shadow's training set, balanced so that each candidate is in exactly half of them. Below 64 shadows one variance
serves all candidates, as the paper advises.

Each shadow's scores are a file of their own in the folder, so that a run that was stopped goes on. Shadows are trained
on private examples and cost nobody budget because nothing but the attack's metrics comes of them: folder and metrics
are internal.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from tfdpgen.attacks.base import Knowledge, ReleaseLike, check_candidates, get
from tfdpgen.attacks.results import AttackResult, compare_scores
from tfdpgen.attacks.running import draw_synthetic, joined, some_examples, split_reference
from tfdpgen.choices import check_shadows
from tfdpgen.data import Dataset, LabeledDataset

TrainFn = Callable[[LabeledDataset, int], tuple[ReleaseLike, Mapping[str, Any]]]

BASES = ("gan_leaks", "logan", "vae_reconstruction", "vae_elbo")
_OWN_VARIANCE_FROM = 64  # shadows


@dataclasses.dataclass(frozen=True)
class ShadowConfig:
    """How shadows are trained.

    Attributes:
      num_shadows: even, at least 4; half of them have any given candidate.
      method: says what is trained, so that the shadows of another method in the same folder are refused.
      num_candidates: members and as many others that are asked about; as many as there are if None.
      num_synthetic: examples drawn from each release.
      bases: names of registered membership attacks whose scores are compared; those that lack networks are left out.
      processes: trainings at a time. 1 trains in this process. More start Python anew, so that a script that calls
        this has to do so below `if __name__ == "__main__":`, as with everything in `multiprocessing`.
      seed: of the choice of candidates and of the trainings, but of no privacy noise.

    Raises:
      ValueError: if a number is too small or no base is named.
    """

    num_shadows: int
    method: str
    num_candidates: int | None = None
    num_synthetic: int = 6_000
    bases: tuple[str, ...] = BASES
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_shadows(self.num_shadows, self.processes)
        if self.num_synthetic < 1:
            raise ValueError(f"`num_synthetic` should be at least 1; got {self.num_synthetic}.")
        if self.num_candidates is not None and self.num_candidates < 1:
            raise ValueError(f"`num_candidates` should be at least 1; got {self.num_candidates}.")
        if not self.bases:
            raise ValueError("`bases` should name at least one attack; it is empty.")


def run_shadow_attacks(
    release: ReleaseLike,
    members: Dataset,
    nonmembers: Dataset,
    train_fn: TrainFn,
    config: ShadowConfig,
    folder: str | os.PathLike[str],
    *,
    networks: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> dict[str, AttackResult]:
    """Trains shadows and attacks a release with what they show. All examples are read into memory.

    Args:
      release: what is attacked.
      members: the examples that it was trained on.
      nonmembers: examples of the same source that it was not trained on. Half of them become the reference, as in
        `run_attacks`.
      train_fn: (examples, seed) -> a release and networks, trained as `release` was. With several processes it is
        pickled.
      config: how many shadows, and of what.
      folder: keeps each shadow's scores, `shadow-<number>.npz`; made if missing. Internal.
      networks: what was trained privately beside the release.
      verbose: 1 prints a line for each shadow.

    Returns:
      "lira_online_<base>" and "lira_offline_<base>" for each base that the networks suffice for.

    Raises:
      ValueError: if shapes differ, no base can run, or the folder holds the shadows of other examples or settings.
    """
    for examples in (members, nonmembers):
        check_candidates(release.spec, examples)
    reference, others = split_reference(nonmembers, config.seed)
    k = min(len(members), len(others), *([] if config.num_candidates is None else [config.num_candidates]))
    rng = np.random.default_rng([config.seed, k])
    positions = rng.permutation(len(members))
    asked = joined([some_examples(members, positions[:k]), some_examples(others, rng.permutation(len(others))[:k])])
    order = rng.permutation(2 * k)
    is_member = (np.arange(2 * k) < k)[order]
    candidates = asked.take(order)
    known = Knowledge(release, draw_synthetic(release, config.num_synthetic, config.seed), reference, networks or {})
    bases = tuple(name for name in config.bases if get(name).can_run(known))
    if not bases:
        raise ValueError(f"`bases` {list(config.bases)} all need networks; `networks` has {sorted(networks or {})}.")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    job = _Job(
        train_fn,
        some_examples(members, np.sort(positions[k:])),
        candidates,
        reference,
        dataclasses.replace(config, bases=bases),
        _membership(config.num_shadows, 2 * k, rng),
        path,
    )
    target = _base_scores(known, candidates, bases, config.seed)
    for i in job.finished():
        _check(path / _name(i), job.fingerprint)
    missing = sorted(set(range(config.num_shadows)) - set(job.finished()))
    for done, number in enumerate(_train_all(job, missing), start=1):
        if verbose:
            print(f"attacks: shadow {number + 1} trained, {done} of {len(missing)}", flush=True)
    shadows = np.stack([_check(path / _name(i), job.fingerprint) for i in range(config.num_shadows)])

    results: dict[str, AttackResult] = {}
    for number, name in enumerate(bases):
        base = get(name)
        for is_online in (True, False):
            kind = "online" if is_online else "offline"
            scores = lira_scores(target[number], shadows[:, number], job.is_in, is_online=is_online)
            results[f"lira_{kind}_{name}"] = compare_scores(
                scores[None, is_member],
                scores[None, ~is_member],
                0.0 if is_online else None,
                description=(
                    f"The score of {name} is compared with the scores that the same candidate got from "
                    f"{config.num_shadows if is_online else config.num_shadows // 2} trainings of the attacker's own, "
                    + ("half of them with the candidate." if is_online else "all of them without the candidate.")
                ),
                access="many trainings",
                paper=f"Carlini et al. 2022, arXiv 2112.03570 ({kind} LiRA), on the score of: {base.paper}",
            )
    return results


def lira_scores(
    target: npt.NDArray[np.float64],
    shadows: npt.NDArray[np.float64],
    is_in: npt.NDArray[np.bool_],
    *,
    is_online: bool,
) -> npt.NDArray[np.float64]:
    """How much likelier each candidate's score is with the candidate among the training examples than without.

    Args:
      target: [n], the scores that the attacked release gives.
      shadows: [shadows, n], those of the shadows.
      is_in: bool [shadows, n], which shadows had which candidate; each candidate in at least two and out of two.
      is_online: the log ratio of the likelihoods under a Gaussian of the scores with and one of those without; else how
        many standard deviations the score lies above those without (Carlini et al. 2022, sections V and VI).

    Returns:
      float64 [n]; higher is likelier a member.

    Raises:
      ValueError: if shapes differ or a candidate is in, or out of, fewer than two shadows.
    """
    if shadows.shape != is_in.shape or shadows.shape[1:] != target.shape:
        raise ValueError(
            f"`shadows` and `is_in` should have shape [shadows, {len(target)}]; got {list(shadows.shape)} and "
            f"{list(is_in.shape)}."
        )
    if min(is_in.sum(axis=0).min(), (~is_in).sum(axis=0).min()) < 2:
        raise ValueError("`is_in` should have each candidate in at least two shadows and out of at least two.")
    mean_out, deviation_out = _gaussian(shadows, ~is_in)
    if not is_online:
        return (target - mean_out) / deviation_out
    mean_in, deviation_in = _gaussian(shadows, is_in)
    return scipy.stats.norm.logpdf(target, mean_in, deviation_in) - scipy.stats.norm.logpdf(
        target, mean_out, deviation_out
    )


def _gaussian(
    shadows: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation [n] of each candidate's scores in the chosen shadows."""
    counts = chosen.sum(axis=0)
    means = np.sum(shadows, axis=0, where=chosen) / counts
    squares = np.sum((shadows - means) ** 2, axis=0, where=chosen)
    own = squares / (counts - 1)
    variances = own if len(shadows) >= _OWN_VARIANCE_FROM else np.full_like(own, squares.sum() / np.sum(counts - 1))
    scale = max(float(np.abs(means).max()), 1.0)
    return means, np.sqrt(np.maximum(variances, (1e-9 * scale) ** 2))


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """All that a worker needs to train any shadow."""

    train_fn: TrainFn
    always: LabeledDataset
    candidates: LabeledDataset
    reference: LabeledDataset
    config: ShadowConfig
    is_in: npt.NDArray[np.bool_]
    folder: Path

    @property
    def fingerprint(self) -> str:
        """Says which examples and settings a shadow's scores belong to; not how many processes there were."""
        settings = dataclasses.asdict(dataclasses.replace(self.config, processes=1))
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for examples in (self.always, self.candidates, self.reference):
            digest.update(examples.images.tobytes() + examples.labels.tobytes())
        return digest.hexdigest()

    def finished(self) -> list[int]:
        """Numbers of the shadows whose scores are there."""
        return [i for i in range(self.config.num_shadows) if (self.folder / _name(i)).exists()]

    def train(self, number: int) -> int:
        """Trains one shadow and leaves its scores in the folder, whole or not at all."""
        examples = joined([self.always, self.candidates.take(np.flatnonzero(self.is_in[number]))])
        seed = int(np.random.SeedSequence([self.config.seed, number]).generate_state(1)[0] >> 1)
        release, networks = self.train_fn(examples, seed)
        synthetic = draw_synthetic(release, self.config.num_synthetic, seed)
        known = Knowledge(release, synthetic, self.reference, networks)
        scores = _base_scores(known, self.candidates, self.config.bases, self.config.seed)
        path = self.folder / _name(number)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, scores=scores, fingerprint=np.array(self.fingerprint))
        part.replace(path)
        return number


def _name(number: int) -> str:
    """The file of a shadow's scores."""
    return f"shadow-{number:05d}.npz"


def _check(path: Path, fingerprint: str) -> npt.NDArray[np.float64]:
    """A shadow's scores [bases, candidates], if they belong to this run."""
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["fingerprint"]) != fingerprint:
            raise ValueError(
                f"`folder` should hold shadows of these examples and settings or none; {path} is of others. Name "
                "another folder, or remove it."
            )
        return arrays["scores"]


def _membership(num_shadows: int, num_candidates: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which shadow has which candidate: random halves, each followed by its complement."""
    halves = [rng.permutation(num_candidates) < num_candidates // 2 for _ in range(num_shadows // 2)]
    return np.stack([part for half in halves for part in (half, ~half)])


def _base_scores(
    known: Knowledge, candidates: LabeledDataset, bases: Sequence[str], seed: int
) -> npt.NDArray[np.float64]:
    """The scores [bases, candidates] of all bases, with the same randomness for every release."""
    return np.stack([get(name).score(known, candidates, np.random.default_rng(seed)) for name in bases])


_worker_job: list[_Job] = []


def _start_worker(job: _Job) -> None:
    """Keeps the job in a worker, which has one thread so that workers do not get in each other's way."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _worker_job[:] = [job]


def _train_one(number: int) -> int:
    """Trains a shadow in a worker."""
    return _worker_job[0].train(number)


def _train_all(job: _Job, numbers: Sequence[int]) -> Iterator[int]:
    """Trains shadows and gives their numbers as they are finished."""
    if job.config.processes == 1 or len(numbers) < 2:
        yield from map(job.train, numbers)
        return
    with concurrent.futures.ProcessPoolExecutor(
        min(job.config.processes, len(numbers)),
        mp_context=multiprocessing.get_context("spawn"),  # TensorFlow does not survive a fork
        initializer=_start_worker,
        initargs=(job,),
    ) as pool:
        trainings = [pool.submit(_train_one, number) for number in numbers]
        try:
            for training in concurrent.futures.as_completed(trainings):
                yield training.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
