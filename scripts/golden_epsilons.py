"""Writes tests/golden/epsilons.csv: what other accountants say of 50 settings, for our own to agree with.

    make peers                                          # .venv-peers, in which Opacus lives
    .venv/bin/python scripts/golden_epsilons.py         # a quarter of an hour

It runs itself a second time in .venv-peers (or with the Python that `--peers` names) for the figures of Opacus, which
cannot live beside the project's own dependencies.

The settings cover sampling probabilities from 1e-4 to 1, up to 20,000 steps, and epsilons of about 0.1 to 20. Each has
four epsilons, all for adding or removing one example:

- dp-accounting's PLD accountant, on a grid of losses of 2e-5 where epsilon is below 1: on its own of 1e-4, rounding
  adds up to 4 % there;
- dp-accounting's RDP accountant as it comes;
- Opacus's PRV accountant (Gopi et al. 2021, "Numerical composition of differential privacy"), an upper bound whose
  own error, `eps_error`, is set to 0.2 % of epsilon: the default of 0.01 is a tenth of the smallest epsilons;
- Opacus's RDP accountant, at dp-accounting's orders, since the smallest epsilons need larger ones than its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import subprocess

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_GOLDEN = _ROOT / "tests" / "golden" / "epsilons.csv"
_COLUMNS = ("num_examples", "expected_batch_size", "steps", "noise_multiplier", "delta")

# num_examples, expected_batch_size, steps, noise_multiplier, delta
_SETTINGS = (
    (1_000_000, 100, 1, 0.45, 1e-6),
    (1_000_000, 100, 10, 0.41, 1e-6),
    (1_000_000, 100, 100, 0.38, 1e-8),
    (1_000_000, 100, 1_000, 0.59, 1e-6),
    (1_000_000, 100, 5_000, 0.52, 1e-6),
    (1_000_000, 100, 20_000, 0.32, 1e-8),
    (1_000_000, 1_000, 1, 0.56, 1e-6),
    (1_000_000, 1_000, 10, 0.67, 1e-6),
    (1_000_000, 1_000, 100, 0.38, 1e-8),
    (1_000_000, 1_000, 1_000, 0.97, 1e-6),
    (1_000_000, 1_000, 5_000, 0.54, 1e-6),
    (1_000_000, 1_000, 20_000, 7.0, 1e-8),
    (60_000, 256, 1, 0.9, 1e-5),
    (60_000, 256, 10, 0.42, 1e-6),
    (60_000, 256, 100, 2.1, 1e-8),
    (60_000, 256, 1_000, 0.7, 1e-5),
    (60_000, 256, 5_000, 0.47, 1e-6),
    (60_000, 256, 20_000, 6.4, 1e-8),
    (60_000, 512, 3_000, 1.1, 1e-5),
    (60_000, 600, 1, 0.72, 1e-5),
    (60_000, 600, 10, 0.47, 1e-6),
    (60_000, 600, 100, 3.7, 1e-8),
    (60_000, 600, 1_000, 0.72, 1e-5),
    (60_000, 600, 5_000, 29.3, 1e-6),
    (60_000, 600, 20_000, 7.7, 1e-8),
    (60_000, 4_096, 1_500, 4.0, 1e-5),
    (50_000, 2_500, 1, 0.44, 1e-5),
    (50_000, 2_500, 10, 2.9, 1e-6),
    (50_000, 2_500, 100, 1.4, 1e-8),
    (50_000, 2_500, 1_000, 0.79, 1e-5),
    (50_000, 2_500, 5_000, 30.7, 1e-6),
    (50_000, 2_500, 20_000, 19.8, 1e-8),
    (10_000, 2_000, 1, 0.52, 1e-5),
    (10_000, 2_000, 10, 14.4, 1e-6),
    (10_000, 2_000, 100, 2.7, 1e-8),
    (10_000, 2_000, 1_000, 215.0, 1e-5),
    (10_000, 2_000, 5_000, 64.1, 1e-6),
    (10_000, 2_000, 20_000, 22.2, 1e-8),
    (2_000, 1_000, 1, 7.0, 1e-5),
    (2_000, 1_000, 10, 2.9, 1e-6),
    (2_000, 1_000, 100, 1.9, 1e-8),
    (2_000, 1_000, 1_000, 121.0, 1e-5),
    (2_000, 1_000, 5_000, 84.3, 1e-6),
    (2_000, 1_000, 20_000, 38.8, 1e-8),
    (500, 500, 1, 18.0, 1e-5),
    (500, 500, 10, 3.3, 1e-6),
    (500, 500, 100, 489.0, 1e-8),
    (500, 500, 1_000, 128.0, 1e-5),
    (500, 500, 5_000, 48.7, 1e-6),
    (500, 500, 20_000, 2520.0, 1e-8),
)


def main() -> None:
    """Writes the table; with `--opacus`, answers one question of the process that does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", default=str(_ROOT / ".venv-peers" / "bin" / "python"), help="a Python with Opacus")
    parser.add_argument("--opacus", metavar="QUESTION", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.opacus:
        print(json.dumps(_ask_opacus(**json.loads(flags.opacus))))
        return
    with _GOLDEN.open("w", newline="") as file:
        names = ("dp_accounting_pld", "dp_accounting_rdp", "opacus_prv", "opacus_rdp")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, *names])
        for setting in _SETTINGS:
            epsilons = _epsilons(flags.peers, *setting)
            writer.writerow([*setting, *(f"{epsilon:.8g}" for epsilon in epsilons)])
            print(*setting, *epsilons, flush=True)


def _epsilons(
    peers: str, num_examples: int, expected_batch_size: int, steps: int, noise_multiplier: float, delta: float
) -> tuple[float, ...]:
    """The four epsilons of a setting."""
    import dp_accounting
    from dp_accounting import pld, rdp
    from dp_accounting.rdp import rdp_privacy_accountant

    sampling_probability = expected_batch_size / num_examples
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian), steps
    )
    by_pld = pld.PLDAccountant().compose(event).get_epsilon(delta)
    if by_pld < 1:
        by_pld = pld.PLDAccountant(value_discretization_interval=2e-5).compose(event).get_epsilon(delta)
    by_rdp = rdp.RdpAccountant().compose(event).get_epsilon(delta)
    question = {
        "sampling_probability": sampling_probability,
        "steps": steps,
        "noise_multiplier": noise_multiplier,
        "delta": delta,
        "eps_error": 2e-3 * by_pld,
        "orders": list(rdp_privacy_accountant.DEFAULT_RDP_ORDERS),
    }
    command = [peers, "-W", "ignore", __file__, "--opacus", json.dumps(question)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return by_pld, by_rdp, *json.loads(answer)


def _ask_opacus(
    sampling_probability: float,
    steps: int,
    noise_multiplier: float,
    delta: float,
    eps_error: float,
    orders: list[float],
) -> tuple[float, float]:
    """Epsilon by Opacus's PRV and RDP accountants."""
    from opacus.accountants import PRVAccountant, RDPAccountant  # pyright: ignore[reportMissingImports]

    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history = rdp.history = [(noise_multiplier, sampling_probability, steps)]
    by_prv = prv.get_epsilon(delta, eps_error=eps_error, delta_error=1e-3 * delta)
    return float(by_prv), float(rdp.get_epsilon(delta, alphas=orders))


if __name__ == "__main__":
    main()
