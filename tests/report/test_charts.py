"""Charts put values where they belong, and curves are those of the accountant and of the promise."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tests.report.test_report import Page
from tfdpgen.attacks import tpr_upper_bound
from tfdpgen.privacy.accounting import epsilon_of, poisson_gaussian_event
from tfdpgen.report.charts import Axis, Line, line_chart
from tfdpgen.report.curves import epsilon_chart, roc_chart

PRIVACY: dict[str, Any] = {
    "num_examples": 1000,
    "expected_batch_size": 100,
    "steps": 50,
    "noise_multiplier": 2.0,
    "delta": 1e-5,
}
LEFT, RIGHT, TOP, BOTTOM = 58, 448, 12, 284  # the drawing's ground


def places(chart: str, css_class: str) -> list[tuple[float, float]]:
    """The points of the one line or band of this class, in shares of the axes."""
    (element,) = re.findall(rf'<poly\w+ class="{css_class}" points="([^"]*)"', chart)
    pairs = [pair.split(",") for pair in element.split()]
    return [((float(x) - LEFT) / (RIGHT - LEFT), (BOTTOM - float(y)) / (BOTTOM - TOP)) for x, y in pairs]


def test_values_have_their_places() -> None:
    line = Line("a", [0, 5, 10, 20], [0, 1, math.nan, 4], band=([0, 0, 0, 0], [0, 2, 2, 9]))
    chart = line_chart("t", Axis("x", 0, 10), Axis("y", 0, 4), [line])
    np.testing.assert_allclose(places(chart, "line series-0"), [(0, 0), (0.5, 0.25), (1, 1)], atol=1e-3)
    band = [(0, 0), (0.5, 0), (1, 0), (1, 0), (1, 1), (1, 0.5), (0.5, 0.5), (0, 0)]
    np.testing.assert_allclose(places(chart, "band series-0"), band, atol=1e-3)
    logarithmic = line_chart(
        "t", Axis("x", 1e-3, 1, is_log=True), Axis("y", 1e-3, 1, is_log=True), [Line("a", [0, 0.1], [1e-2, 1])]
    )
    np.testing.assert_allclose(places(logarithmic, "line series-0"), [(0, 1 / 3), (2 / 3, 1)], atol=1e-3)


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 4000), [0, 1000, 2000, 3000, 4000]),
        (Axis("", 0, 3.15), [0, 1, 2, 3]),
        (Axis("", 0.12, 0.31), [0.15, 0.2, 0.25, 0.3]),
        (Axis("", 1e-3, 1, is_log=True), [1e-3, 1e-2, 0.1, 1]),
    ],
)
def test_ticks_are_round_and_within(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks == pytest.approx(ticks)


def test_names_are_escaped_and_told_apart() -> None:
    hostile = "\"'><script>alert(1)</script>"
    chart = line_chart(
        hostile, Axis(hostile, 0, 1), Axis(hostile, 0, 1), [Line(hostile, [0], [0]), Line("b", [1], [1])]
    )
    page = Page(str(chart))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert page.text.count(hostile) == 3
    assert places(chart, "line series-0") != places(chart, "line series-1")
    for low, high, is_log in ((1, 1, False), (0, math.inf, False)):
        with pytest.raises(ValueError, match="`low` should be below `high`"):
            Axis("", low, high, is_log)
    with pytest.raises(ValueError, match="`low` should be greater than 0 on a logarithmic axis"):
        Axis("", 0, 1, is_log=True)


def test_epsilon_grows_along_the_accountants_curves() -> None:
    chart = epsilon_chart(PRIVACY)
    assert chart is not None
    spent = {
        name: epsilon_of(poisson_gaussian_event(0.1, 2.0, 25), 1e-5, name)
        / epsilon_of(poisson_gaussian_event(0.1, 2.0, 50), 1e-5, "rdp")
        for name in ("pld", "rdp")
    }
    for css_class, name in (("line series-0", "pld"), ("line series-1", "rdp")):
        points = places(chart, css_class)
        assert points[0] == (0, 0)
        assert points == sorted(points)
        (middle,) = (y for x, y in points if x == 0.5)
        assert middle * 1.05 == pytest.approx(spent[name], abs=2e-3)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": None},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": "<b>"},
        {"delta": math.nan},
        {"num_examples": 10},
    ],
)
def test_without_dp_sgd_nothing_is_drawn(changed: dict[str, Any]) -> None:
    assert epsilon_chart(PRIVACY | changed) is None
    assert epsilon_chart({}) is None


def test_roc_curves_stand_beside_what_the_promise_allows() -> None:
    roc = {"fpr": [0, 1e-3, 0.01, 1], "tpr": [0, 0.01, 0.1, 1], "low": [0, 0, 0.05, 1], "high": [0.1, 0.1, 0.2, 1]}
    chart = roc_chart("a", {"roc": roc, "is_membership": True}, epsilon=1.0, delta=1e-5, epsilon_replace_one=1.9)
    assert chart is not None
    np.testing.assert_allclose(places(chart, "line series-0"), [(0, 1 / 3), (1 / 3, 2 / 3), (1, 1)], atol=1e-3)
    group = 2.0, (1 + math.e) * 1e-5

    def height(rate: float) -> float:
        return 1 + math.log10(rate) / 3

    for css_class, pairs in (("line bound", [(1.0, 1e-5)]), ("line bound far", [group, (1.9, 1e-5)])):
        for x, y in places(chart, css_class):
            allowed = min(tpr_upper_bound(10 ** (3 * x - 3), *pair) for pair in pairs)
            assert y == pytest.approx(height(allowed), abs=6e-3)
    without = roc_chart("a", {"roc": roc, "is_membership": False}, epsilon=1.0, delta=1e-5)
    assert without is not None
    assert "line bound" not in without


@pytest.mark.parametrize(
    "roc", [None, {}, {"fpr": [0, 1], "tpr": [0]}, {"fpr": ["<b>"], "tpr": ["<b>"]}, {"fpr": "ab", "tpr": "ab"}]
)
def test_without_a_curve_nothing_is_drawn(roc: Any) -> None:
    assert roc_chart("a", {"roc": roc, "is_membership": True}, epsilon=1.0, delta=1e-5) is None
