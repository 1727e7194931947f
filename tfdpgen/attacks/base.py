"""What an attack is: a question, and a score for each candidate that answers it from the release alone.

    attack = get("classifier_holdout")
    attack.score(release, candidates, np.random.default_rng(0))     # float [n]; higher is likelier a member

An attack never sees who is a member, nor any row that is not among its candidates. `run_attacks` does, and compares.
A new attack is a scoring function in a file of its own, registered with what it asks:

    register(Attack("distance", "...", is_membership=True, score_fn=distance_scores, decision_threshold=-1.0))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tfdpgen.data import DataSpec


class ReleaseLike(Protocol):
    """What an attacker holds: anything that draws labelled images, such as `tfdpgen.synthesizers.Release`."""

    @property
    def spec(self) -> DataSpec:
        """The public facts about the data."""
        ...

    def sample(self, labels: Sequence[int] | npt.NDArray[np.integer], seed: int) -> npt.NDArray[np.uint8]:
        """One image [h, w, c] for each label."""
        ...


ScoreFn = Callable[[ReleaseLike, npt.NDArray[np.uint8], np.random.Generator], npt.NDArray[np.floating]]


@dataclasses.dataclass(frozen=True)
class Attack:
    """A question put to a scoring function.

    Attributes:
      name: what the registry and all figures call it.
      description: a sentence or two for a reader of the figures: what is trained on what, and what is asked.
      is_membership: whether it asks private rows against rows of the same source that were never trained on, which is
        what differential privacy bounds. If False, it asks private rows against uniform noise: whether the release
        shows what private rows look like at all, which no epsilon bounds and every useful release does.
      score_fn: (release, candidates uint8 [n, h, w, c], rng) -> float [n], higher is likelier a member. Any randomness
        comes from `rng`, and a score depends on its own candidate alone, not on the others or on their order. Attacks
        with the same `score_fn` are scored together.
      decision_threshold: a candidate with a higher score is called a member.
    """

    name: str
    description: str
    is_membership: bool
    score_fn: ScoreFn
    decision_threshold: float

    def score(
        self, release: ReleaseLike, candidates: npt.NDArray[np.uint8], rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Scores candidates.

        Args:
          release: what is attacked.
          candidates: uint8 [n, h, w, c] of the release's image shape.
          rng: all randomness; the same state gives the same scores.

        Returns:
          Finite float64 [n]; higher is likelier a member.

        Raises:
          ValueError: if the candidates are of another shape or type, or a score is missing or not finite.
        """
        shape = release.spec.image_shape
        if candidates.dtype != np.uint8 or candidates.shape[1:] != shape:
            raise ValueError(
                f"`candidates` should be uint8 of shape [n, {', '.join(map(str, shape))}]; "
                f"got {candidates.dtype} of shape {list(candidates.shape)}."
            )
        scores = np.asarray(self.score_fn(release, candidates, rng), dtype=np.float64)
        if scores.shape != candidates.shape[:1] or not np.isfinite(scores).all():
            raise ValueError(
                f"attack {self.name!r} should give one finite score for each of {len(candidates)} candidates; got "
                f"shape {list(scores.shape)}, {int(np.sum(~np.isfinite(scores)))} of them not finite. Correct its "
                "`score_fn`."
            )
        return scores


ATTACKS: dict[str, Attack] = {}


def register(attack: Attack) -> Attack:
    """Adds an attack to `ATTACKS`.

    Raises:
      ValueError: if its name is taken.
    """
    if attack.name in ATTACKS:
        raise ValueError(f"`attack` should have a name of its own; {attack.name!r} is registered already.")
    ATTACKS[attack.name] = attack
    return attack


def get(name: str) -> Attack:
    """The attack of that name.

    Raises:
      ValueError: if there is none; the message lists what there is.
    """
    if name not in ATTACKS:
        raise ValueError(f"`name` should be one of {sorted(ATTACKS)}; got {name!r}.")
    return ATTACKS[name]
