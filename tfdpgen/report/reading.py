"""Readings: the metrics of a release in sentences, for a person who does not know what p3 is.

    for reading in readings(summary):
        reading.text, reading.is_caution

Each sentence says what was measured, beside the level that real images reach, and none calls a metric good. Where the
metrics contradict what a single one of them suggests, a caution says so: p2 without p3 is noise that teaches a
classifier, and p3 without p2 is one picture, many times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

_APART = 0.1  # accuracy that p3 may lack of p1, or p2 of p1, before the two are said to disagree
_TEACHES = 0.5  # p2, below which nobody would call it teaching
_SURE = 0.995  # of p3: classes that no image can be mistaken for, whatever else it looks like
_FAR = 3.0  # times the Frechet distance of real images, above which a recognised label may mislead
_ALIKE = 0.6  # of the diversity of real images, below which images of a class are called alike
_SPACES = {"cnn": "a CNN's features", "scattering": "fixed wavelets", "inception": "Inception's features"}


class Reading(NamedTuple):
    """A sentence or two.

    Attributes:
      text: plain.
      is_caution: whether it warns of what another metric suggests.
    """

    text: str
    is_caution: bool = False


def readings(summary: Mapping[str, Any]) -> list[Reading]:
    """What the metrics of a summary say; of those that were not measured, nothing.

    Args:
      summary: as in summary.json, of which `utility` and `fidelity` are read.
    """
    utility, fidelity = summary.get("utility") or {}, summary.get("fidelity") or {}
    p1, p2, p3 = (_number(utility.get(name)) for name in ("p1", "p2", "p3"))
    found: list[Reading] = []
    if p3 is not None:
        level = "" if p1 is None else f"; of real images it recognises {_percent(p1)}"
        found.append(
            Reading(f"A classifier of real images recognises {_percent(p3)} of these as what they are labelled{level}.")
        )
    if p2 is not None:
        level = "" if p1 is None else f", and one that has learnt from real images on {_percent(p1)}"
        found.append(
            Reading(f"A classifier that has learnt from these alone is right on {_percent(p2)} of real images{level}.")
        )
    for name, metrics in fidelity.items():
        distance, real = (_number((metrics.get(kind) or {}).get("fid")) for kind in ("generated", "real"))
        if distance is not None and real is not None:
            found.append(
                Reading(
                    f"In {_SPACES.get(name, name)} their Fréchet distance to real images is {distance:.3g}, where "
                    f"other real images have {real:.2g}; smaller is nearer."
                )
            )
    diversity = next(
        (
            value
            for name in ("cnn", "scattering")
            if (value := _number(((fidelity.get(name) or {}).get("generated") or {}).get("diversity"))) is not None
        ),
        None,
    )
    if diversity is not None:
        much = "as much" if round(diversity, 1) == 1 else f"{diversity:.2g} times as much"
        found.append(Reading(f"Images of one class differ {much} as real ones do."))
    return found + _cautions(p1, p2, p3, diversity, fidelity)


def _cautions(
    p1: float | None, p2: float | None, p3: float | None, diversity: float | None, fidelity: Mapping[str, Any]
) -> list[Reading]:
    """Where metrics contradict each other."""
    if p1 is None or p2 is None or p3 is None:
        return []
    found = []
    if p3 < p1 - _APART and p2 > max(p3, _TEACHES):
        found.append(
            f"They teach a classifier (p2 {p2:.2f}) better than they show what they are labelled as (p3 {p3:.2f}): "
            "look at them before you call them images of their classes."
        )
    if p3 > p2 + _APART:
        found.append(
            f"They are recognised (p3 {p3:.2f}) and teach less (p2 {p2:.2f}): they show the typical image of a class, "
            "and little of what else there is."
        )
    elif diversity is not None and diversity < _ALIKE:
        found.append("Images of one class are much alike: rare kinds of images are missing.")
    if p3 >= _SURE and _is_far(fidelity):
        found.append(
            "That all of their labels are recognised says little about how real they look: their distances are far "
            "above those of other real images. Look at them."
        )
    if p3 < p1 - _APART and p2 < p1 - _APART:
        found.append("By both measures they are a weak stand-in for the private images at this budget.")
    return [Reading(text, is_caution=True) for text in found]


def _is_far(fidelity: Mapping[str, Any]) -> bool:
    """Whether a Frechet distance is several times that of other real images."""
    pairs = [
        [_number((metrics.get(kind) or {}).get("fid")) for kind in ("generated", "real")]
        for metrics in fidelity.values()
    ]
    return any(fid is not None and real is not None and fid > _FAR * real for fid, real in pairs)


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 else f"{100 * share:.1f} %"
