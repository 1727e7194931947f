"""What a budget buys is decided by public facts, and costs what it should."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tfdpgen.data import DataSpec
from tfdpgen.methods import CVAE, moments
from tfdpgen.methods.c_vae_preset import preset_for
from tfdpgen.privacy import ClassMoments, PrivacyBudget, epsilon_of

_CHOICE = ["centres of classes with poses", "centres of classes without poses", "rows nearest to their own class"]


@pytest.mark.parametrize(
    ("epsilon", "names"),
    [
        (0.1, ["centre of all rows", "class moments"]),
        (0.2, [*_CHOICE, "class moments"]),
        (1.0, [*_CHOICE, "class moments", moments.NEAR_COMPONENTS, moments.ROUGH]),
        (10.0, [*_CHOICE, "class moments", "moments of components"]),
    ],
)
def test_components_and_a_choice_are_released_where_noise_lets_them_be_told(epsilon: float, names: list[str]) -> None:
    spec, budget = DataSpec((28, 28, 1), 10), PrivacyBudget(epsilon, 1e-5)
    preset = dataclasses.replace(preset_for(spec, 54_000), hidden_units=(4,))
    model = CVAE(spec, 54_000, 0, preset)
    mechanisms = model.alongside(budget)
    assert [mechanism.name for mechanism in mechanisms] == names
    # Gaussian mechanisms of noise multipliers a and b are one of c, with 1 / c^2 = 1 / a^2 + 1 / b^2.
    together = sum(mechanism.noise_multiplier**-2 for mechanism in mechanisms) ** -0.5
    cost = epsilon_of(ClassMoments(together, 1.0).event, 1e-5)
    assert 0.99 * preset.moments_share * epsilon < cost <= preset.moments_share * epsilon * (1 + 1e-6)


@pytest.mark.parametrize(("num_classes", "num_examples", "are_asked"), [(2, 1900, 0), (2, 3000, 1), (10, 3000, 1)])
def test_counts_of_few_rows_do_not_tell_of_poses(num_classes: int, num_examples: int, are_asked: bool) -> None:
    """However few classes there are: the noise of a count does not know of them."""
    model = CVAE(DataSpec((28, 28, 1), num_classes), num_examples, 0)
    names = [part.name for part in model.alongside(PrivacyBudget(6.0, 1e-5))]
    assert names[:3] == _CHOICE if are_asked else names[0] == "centres of classes"


@pytest.mark.parametrize("num_examples", [54_000, 6000])
def test_what_is_released_and_what_is_made_of_it_agree_about_noise(
    num_examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where noise and rows nearly balance."""
    plan = CVAE(DataSpec((28, 28, 1), 10), num_examples, 0).moments
    told = set()
    for precision in np.linspace(0.97, 1.03, 61) * (10 * 8 * plan.num_noisy_features / num_examples) ** 2 / 0.895:
        monkeypatch.setattr(moments.MomentsPlan, "_precision", lambda _, budget, p=precision: p * budget.epsilon**2)
        mechanisms = plan.mechanisms(PrivacyBudget(1.0, 1e-5))
        is_alone = [part.name for part in mechanisms if isinstance(part, ClassMoments)] == ["class moments"]
        assert plan.is_outweighed(mechanisms) == is_alone
        told.add(is_alone)
    assert told == ({True, False} if num_examples == 54_000 else {False})  # of few rows there are rough components


@pytest.mark.parametrize(("epsilon", "is_noisy"), [(1.0, False), (0.2, True)])
def test_what_outweighs_is_decided_from_public_facts(epsilon: float, is_noisy: bool) -> None:
    model = CVAE(DataSpec((28, 28, 1), 10), 54_000, 0)
    mechanism: Any = model.alongside(PrivacyBudget(epsilon, 1e-5))[-1]
    noise_multiplier = mechanism.noise_multiplier
    assert model.moments.is_noisy(noise_multiplier) is is_noisy
    assert CVAE(DataSpec((28, 28, 1), 10), 5_000, 0).moments.is_noisy(noise_multiplier)
