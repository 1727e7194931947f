"""Readings: every measure in a sentence with the level beside it, and a caution where two of them disagree."""

from __future__ import annotations

from typing import Any

import pytest

from tfdpgen.report.reading import readings


def _summary(p1: float | None, p2: float | None, p3: float | None, diversity: float = 0.9) -> dict[str, Any]:
    space = {"generated": {"fid": 17.63, "diversity": diversity}, "real": {"fid": 0.482}}
    return {"utility": {"p1": p1, "p2": p2, "p3": p3}, "fidelity": {"scattering": space, "cnn": space}}


def _texts(summary: dict[str, Any], *, is_caution: bool) -> str:
    return " ".join(reading.text for reading in readings(summary) if reading.is_caution == is_caution)


def test_each_measure_is_said_beside_its_level() -> None:
    said = _texts(_summary(0.9861, 0.912, 0.97), is_caution=False)
    for part in (
        "recognises 97 % of these as what they are labelled; of real images it recognises 99 %",
        "from these alone is right on 91 % of real images, and one that has learnt from real images on 99 %",
        "In a CNN's features their Fréchet distance to real images is 17.6, where other real images have 0.48",
        "In fixed wavelets",
        "differ 0.9 times as much as real ones do",
    ):
        assert part in said
    assert "good" not in said


@pytest.mark.parametrize(
    ("values", "diversity", "expected"),
    [
        ((0.99, 0.97, 0.96), 0.9, ""),
        ((0.986, 0.972, 0.614), 0.9, "They teach a classifier (p2 0.97) better than they show"),
        ((0.99, 0.82, 0.98), 0.9, "They are recognised (p3 0.98) and teach less (p2 0.82)"),
        ((0.99, 0.95, 0.98), 0.3, "Images of one class are much alike"),
        ((1.0, 1.0, 1.0), 0.9, "That all of their labels are recognised says little about how real they look"),
        ((0.99, 0.52, 0.33), 0.9, "a weak stand-in for the private images"),
    ],
)
def test_cautions_say_where_measures_disagree(
    values: tuple[float, float, float], diversity: float, expected: str
) -> None:
    said = _texts(_summary(*values, diversity=diversity), is_caution=True)
    assert said.startswith(expected) if expected != "a weak stand-in for the private images" else expected in said
    assert bool(said) == bool(expected)


def test_of_what_was_not_measured_nothing_is_said() -> None:
    assert readings({}) == []
    assert readings(_summary(None, None, None) | {"fidelity": {"cnn": {"not_measured": "too few"}}}) == []
    assert len(readings({"utility": {"p1": None, "p2": 0.5, "p3": None}})) == 1
    assert "nan" not in _texts(_summary(0.9, float("nan"), 0.9), is_caution=False)
