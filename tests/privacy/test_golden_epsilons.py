"""Our epsilons are those of dp-accounting and of Opacus, recorded by scripts/golden_epsilons.py, to 1 %."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tfdpgen.privacy import epsilon_of
from tfdpgen.privacy.accounting import poisson_gaussian_event

_GOLDEN = Path(__file__).parent.parent / "golden" / "epsilons.csv"
_ROWS = list(csv.DictReader(_GOLDEN.read_text().splitlines()))


def _ours(row: dict[str, str], accountant: str) -> float:
    sampling_probability = int(row["expected_batch_size"]) / int(row["num_examples"])
    event = poisson_gaussian_event(sampling_probability, float(row["noise_multiplier"]), int(row["steps"]))
    return epsilon_of(event, float(row["delta"]), accountant)


def test_the_table_covers_what_it_should() -> None:
    assert len(_ROWS) == 50
    probabilities = {int(row["expected_batch_size"]) / int(row["num_examples"]) for row in _ROWS}
    assert min(probabilities) == 1e-4
    assert max(probabilities) == 1
    assert {row["steps"] for row in _ROWS} >= {"1", "20000"}
    epsilons = [float(row["opacus_prv"]) for row in _ROWS]
    assert min(epsilons) < 0.11
    assert max(epsilons) > 17


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: "-".join(list(row.values())[:5]))
def test_pld_agrees_with_dp_accounting_and_with_opacus(row: dict[str, str]) -> None:
    epsilon = _ours(row, "pld")
    assert epsilon == pytest.approx(float(row["dp_accounting_pld"]), rel=1e-2)
    assert epsilon == pytest.approx(float(row["opacus_prv"]), rel=1e-2)


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: "-".join(list(row.values())[:5]))
def test_rdp_agrees_with_dp_accounting_and_with_opacus(row: dict[str, str]) -> None:
    epsilon = _ours(row, "rdp")
    assert epsilon == pytest.approx(float(row["dp_accounting_rdp"]), rel=1e-2)
    assert epsilon == pytest.approx(float(row["opacus_rdp"]), rel=1e-2)
