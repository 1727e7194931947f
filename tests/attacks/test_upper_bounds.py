"""Upper bounds against the definition that they follow from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from tfdpgen.attacks import auc_upper_bound, privacy_loss_upper_bound, tpr_upper_bound, upper_bounds_of


@given(st.floats(0, 12), st.floats(0, 1))
def test_privacy_loss_is_the_largest_difference_that_the_definition_allows(epsilon: float, delta: float) -> None:
    factor = math.exp(epsilon)
    # Maximise t - f over all true and false positive rates that (epsilon, delta) permits.
    best = scipy.optimize.linprog(
        c=[-1, 1],
        A_ub=[[1, -factor], [factor, -1]],
        b_ub=[delta, delta + factor - 1],
        bounds=[(0, 1), (0, 1)],
    )
    assert privacy_loss_upper_bound(epsilon, delta) == pytest.approx(-best.fun, abs=1e-6)


@given(st.floats(0, 8), st.floats(0, 1), st.floats(0, 1))
def test_tpr_is_the_largest_that_the_definition_allows(epsilon: float, delta: float, fpr: float) -> None:
    factor = math.exp(epsilon)
    best = scipy.optimize.linprog(
        c=[-1], A_ub=[[1], [factor]], b_ub=[factor * fpr + delta, factor - 1 + fpr + delta], bounds=[(0, 1)]
    )
    assert tpr_upper_bound(fpr, epsilon, delta) == pytest.approx(-best.fun, abs=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.3])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_auc_is_the_area_under_the_largest_tpr(epsilon: float, delta: float) -> None:
    fprs = np.linspace(0, 1, 20_001)
    area = scipy.integrate.trapezoid([tpr_upper_bound(f, epsilon, delta) for f in fprs], fprs)
    assert auc_upper_bound(epsilon, delta) == pytest.approx(area, abs=1e-4)


def test_at_the_ends() -> None:
    assert privacy_loss_upper_bound(0, 0) == 0
    assert privacy_loss_upper_bound(0, 0.25) == 0.25
    assert privacy_loss_upper_bound(3, 1e-5) == pytest.approx((math.exp(3) - 1 + 2e-5) / (math.exp(3) + 1))
    assert auc_upper_bound(0, 0) == 0.5
    assert tpr_upper_bound(0.0, 3.0, 1e-5) == 1e-5
    for epsilon in (1_000, math.inf):
        assert (
            privacy_loss_upper_bound(epsilon, 1e-5)
            == auc_upper_bound(epsilon, 1e-5)
            == tpr_upper_bound(0.5, epsilon, 1e-5)
            == 1
        )


def test_an_exchange_is_allowed_more_and_no_more_than_was_accounted_for_it() -> None:
    group = upper_bounds_of(1.0, 1e-5)
    assert group["exchange"]["privacy_loss"] == privacy_loss_upper_bound(2.0, (1 + math.e) * 1e-5)
    accounted = upper_bounds_of(1.0, 1e-5, epsilon_replace_one=1.7)
    assert accounted["exchange"]["auc"] == auc_upper_bound(1.7, 1e-5)
    assert upper_bounds_of(1.0, 1e-5, epsilon_replace_one=9.0) == group
    for name, allowed in group["add_or_remove"].items():
        assert allowed < accounted["exchange"][name] < group["exchange"][name]


@pytest.mark.parametrize(("epsilon", "delta", "name"), [(-1, 0, "epsilon"), (math.nan, 0, "epsilon"), (1, 2, "delta")])
def test_refusals(epsilon: float, delta: float, name: str) -> None:
    for bound in (privacy_loss_upper_bound, auc_upper_bound, lambda *pair: tpr_upper_bound(0.5, *pair)):
        with pytest.raises(ValueError, match=f"`{name}` should"):
            bound(epsilon, delta)
    with pytest.raises(ValueError, match="`fpr` should lie in"):
        tpr_upper_bound(1.5, 1.0, 0.0)
