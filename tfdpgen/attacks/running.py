"""Running attacks: who is asked about whom, with what in the attackers' hands.

    results = run_attacks(release, splits.train, splits.holdout, seed=0)
    results["gan_leaks"].privacy_loss, results["gan_leaks"].privacy_loss_interval

Attacks see candidates, shuffled, and never who is a member; `compare_scores` (`results.py`) makes metrics of what they
score. The metrics are computed from private examples without noise: they are internal and not covered by any epsilon.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks import (  # noqa: F401  # each adds its attacks to ATTACKS
    classifier,
    critic_gradient,
    critic_neighbours,
    domias,
    gan_leaks,
    logan,
    monte_carlo,
    reconstruction,
)
from tfdpgen.attacks.base import (
    ATTACKS,
    Attack,
    Knowledge,
    ReleaseLike,
    RunTasks,
    Task,
    check_candidates,
    chunked,
    get,
    join_chunks,
    run_here,
)
from tfdpgen.attacks.results import AttackResult, compare_scores
from tfdpgen.data import Dataset, LabeledDataset

NUM_SYNTHETIC = 6_000  # examples drawn where none are given
MOST_REFERENCE = 10_000
_REFERENCE_SHARE = 0.5  # of the non-members


def run_attacks(
    release: ReleaseLike,
    members: Dataset,
    nonmembers: Dataset,
    *,
    synthetic: LabeledDataset | None = None,
    networks: Mapping[str, Any] | None = None,
    repetitions: int = 5,
    num_candidates: int | None = None,
    seed: int,
    names: Sequence[str] | None = None,
    run_tasks: RunTasks = run_here,
    verbose: int = 0,
) -> dict[str, AttackResult]:
    """Runs attacks on a release and compares what they score.

    Half of the non-members, at most 10,000, become the attackers' reference and are never asked about. Each repetition
    draws k members and k others without replacement, shuffles them, and lets each attack score them. The others are
    examples of the rest of `nonmembers` if the attack asks for membership, and else uniform noise with random labels.
    Attacks that share their preparation are prepared once a repetition, and searches once for all repetitions.

    Args:
      release: anything with `spec` and `sample(labels, seed)`.
      members: examples that the release was trained on.
      nonmembers: examples of the same source that it was not trained on; at least 2.
      synthetic: the examples that were handed out; 6,000 are drawn from the release if None.
      networks: what was trained privately beside the generator, by name; attacks that need more are left out.
      repetitions: at least 1.
      num_candidates: k; as many as both data sets have if None or if there are fewer.
      seed: for all draws and all training.
      names: which attacks; all registered ones that the networks suffice for if None.
      run_tasks: runs searches, each a pure function and the candidates that it is applied to. Elsewhere than here, for
        instance; results are the same.
      verbose: 1 prints a line for each repetition.

    Returns:
      One result for each attack, by name.

    Raises:
      ValueError: for unknown names, numbers below 1, empty data sets, differing image shapes, or an attack named whose
        networks are missing.
    """
    if (
        repetitions < 1
        or (num_candidates is not None and num_candidates < 1)
        or not len(members)
        or len(nonmembers) < 2
    ):
        raise ValueError(
            "`repetitions`, `num_candidates` and the examples of `members` should be at least 1, and those of "
            f"`nonmembers` 2; got {repetitions}, {num_candidates}, {len(members)} and {len(nonmembers)}."
        )
    chosen = [get(name) for name in (ATTACKS if names is None else names)]
    for examples in (members, nonmembers):
        check_candidates(release.spec, examples)
    reference, others = split_reference(nonmembers, seed)
    known = Knowledge(
        release,
        synthetic if synthetic is not None else draw_synthetic(release, NUM_SYNTHETIC, seed),
        reference,
        networks or {},
    )
    attacks = [attack for attack in chosen if attack.can_run(known)]
    if names is not None and len(attacks) < len(chosen):
        missing = [attack.name for attack in chosen if attack not in attacks]
        raise ValueError(
            f"`names` {missing} need networks that were not given; `networks` has {sorted(networks or {})}."
        )
    k = min(len(members), len(others), *([] if num_candidates is None else [num_candidates]))

    groups = _by_prepare_fn(attacks)
    searches = {
        i: group[0].prepare_fn(known, np.random.default_rng([seed, repetitions, i]))
        for i, group in enumerate(groups)
        if group[0].is_search
    }
    asked: list[_Asked] = []
    tasks: list[Task] = []
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        kinds = {
            "member": some_examples(members, rng.choice(len(members), k, replace=False)),
            "nonmember": some_examples(others, rng.choice(len(others), k, replace=False)),
            "noise": _noise(release, k, rng),
        }
        for i, group in enumerate(groups):
            names_of = ["member", *sorted({_opponent(attack) for attack in group})]
            examples = joined([kinds[name] for name in names_of])
            order = rng.permutation(len(examples))  # so that no position tells who is a member
            parts = chunked(searches[i] if i in searches else group[0].prepare_fn(known, rng), examples.take(order))
            if i in searches:
                tasks += parts
            asked.append(_Asked(i, names_of, order, len(parts), None if i in searches else run_here(parts)))
        if verbose:
            print(f"attacks: repetition {repetition + 1} of {repetitions} done")
    del known, kinds
    searched = iter(run_tasks(tasks) if tasks else ())
    del tasks

    scores: dict[str, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]] = {a.name: [] for a in attacks}
    for part in asked:
        found = [next(searched) for _ in range(part.num_chunks)] if part.scores is None else part.scores
        columns = np.asarray(join_chunks(found, len(part.order)))[np.argsort(part.order)]
        for attack in groups[part.group]:
            by_kind = np.split(attack.column_of(columns, len(part.order)), len(part.kinds))
            scores[attack.name].append((by_kind[0], by_kind[part.kinds.index(_opponent(attack))]))
    return {
        attack.name: compare_scores(
            [pair[0] for pair in scores[attack.name]],
            [pair[1] for pair in scores[attack.name]],
            attack.decision_threshold,
            **attack.facts,
        )
        for attack in attacks
    }


def draw_synthetic(release: ReleaseLike, num_examples: int, seed: int) -> LabeledDataset:
    """Examples drawn from a release, whose labels cycle through the classes."""
    labels = np.arange(num_examples, dtype=np.int64) % release.spec.num_classes
    return LabeledDataset(release.sample(labels, seed=seed), labels, release.spec)


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """What one group of attacks was asked in one repetition, and its scores unless a search will give them."""

    group: int
    kinds: list[str]
    order: npt.NDArray[np.int64]
    num_chunks: int
    scores: list[npt.NDArray[np.floating]] | None


def _opponent(attack: Attack) -> str:
    """What members are to be told from."""
    return "nonmember" if attack.is_membership else "noise"


def split_reference(nonmembers: Dataset, seed: int) -> tuple[LabeledDataset, Dataset]:
    """The attackers' reference and the examples that they may be asked about: disjoint, chosen by position and seed."""
    positions = np.random.default_rng([seed, len(nonmembers)]).permutation(len(nonmembers))
    size = min(MOST_REFERENCE, int(_REFERENCE_SHARE * len(nonmembers)))
    reference, others = np.sort(positions[:size]), np.sort(positions[size:])
    return some_examples(nonmembers, reference), nonmembers.take(others)


def some_examples(dataset: Dataset, positions: npt.NDArray[np.int64]) -> LabeledDataset:
    """Some examples of a data set."""
    return LabeledDataset(*dataset.examples(positions), dataset.spec)


def _noise(release: ReleaseLike, num_examples: int, rng: np.random.Generator) -> LabeledDataset:
    """Uniform noise with random labels."""
    spec = release.spec
    images = rng.integers(256, size=(num_examples, *spec.image_shape), dtype=np.uint8)
    return LabeledDataset(images, rng.integers(spec.num_classes, size=num_examples), spec)


def joined(parts: Sequence[LabeledDataset]) -> LabeledDataset:
    """The examples of all parts."""
    images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    return LabeledDataset(images, labels, parts[0].spec)


def _by_prepare_fn(attacks: Sequence[Attack]) -> list[list[Attack]]:
    """Attacks grouped by the function that prepares them, in order of appearance."""
    groups: list[list[Attack]] = []
    for attack in attacks:
        group = next((group for group in groups if group[0].prepare_fn == attack.prepare_fn), None)
        groups.append([attack]) if group is None else group.append(attack)
    return groups
