"""An audit on the command line: what is claimed, and what one training on canaries refutes.

python -m tfdpgen.attacks.audit --epsilon=4 --canaries=50000
python -m tfdpgen.attacks.audit --epsilon=4 --optimizer=adam --steps=20 --sampling_probability=0.1 --runs=20
python -m tfdpgen.attacks.audit --adversary=black_box --dataset=digits --method=gaussian_mixture --canaries=1000

TensorFlow, whose start takes seconds, is imported when the flags are known to be good.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfdpgen.choices import METHODS, check_budget

if TYPE_CHECKING:
    from tfdpgen.attacks.audit import AuditResult
    from tfdpgen.privacy import NoiseSource, PrivacyBudget

OPTIMIZER_NAMES = ("adam", "adamw", "sgd")
_CANARIES = {"white_box": 50_000, "black_box": 1_000}


def main(arguments: Sequence[str], program: str = "python -m tfdpgen.attacks.audit") -> int:
    """The command line; returns the exit status: 1 if the claim is refuted, 2 for a bad value."""
    return run_audits(parse_flags(arguments, program))


def run_audits(flags: argparse.Namespace) -> int:
    """Runs audits and prints a line for each; returns the exit status."""
    canaries = _CANARIES[flags.adversary] if flags.canaries is None else flags.canaries
    try:
        if flags.runs < 1:
            raise ValueError(f"`--runs` should be at least 1; got {flags.runs}.")
        check_budget(flags.epsilon, flags.delta)
        import scipy.stats

        from tfdpgen.privacy import NoiseSource, PrivacyBudget

        budget = PrivacyBudget(flags.epsilon, flags.delta)
        run = (
            _white_box(flags, budget, canaries)
            if flags.adversary == "white_box"
            else _black_box(flags, budget, canaries)
        )
        print("claimed epsilon   lower bound   if Gaussian   and independent   guesses right/made   canaries   seconds")
        results = []
        for number in range(flags.runs):
            results.append(run(NoiseSource() if flags.seed is None else NoiseSource.insecure(flags.seed + number)))
            print(_line(results[-1]), flush=True)
    except ValueError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    refuted = sum(result.is_refuted for result in results)
    by_chance = float(scipy.stats.binom.sf(refuted - 1, flags.runs, 1 - flags.confidence))  # at most, of a true claim
    is_refuted = by_chance < 1 - flags.confidence + 1e-9
    print(
        f"\n{flags.adversary}: {refuted} of {flags.runs} bounds, each at {flags.confidence:.0%} confidence and delta "
        f"{flags.delta:g}, are above the claim: {'it is refuted' if is_refuted else 'nothing is refuted'}. "
        "The metrics are internal, not for release."
    )
    return int(is_refuted)


def parse_flags(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The flags, without TensorFlow; exits 2 where one is unknown or malformed."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="An empirical lower bound on epsilon from canaries, beside the epsilon that is claimed. Exits 1 if "
        "the claim is refuted.",
    )
    parser.add_argument(
        "--adversary",
        default="white_box",
        choices=("white_box", "black_box"),
        help="white_box: sees each noised update of the optimizer, no private example takes part; black_box: sees "
        "samples of a method trained on the data set and canaries (default: white_box)",
    )
    for name, kind, default, text in (
        ("epsilon", float, 4.0, "the claim that is tested"),
        ("delta", float, 1e-5, "of the claim"),
        ("confidence", float, 0.95, "of a lower bound"),
        ("runs", int, 1, "how many audits, each with fresh coins and noise"),
        ("steps", int, 1, "white_box: steps of DP-SGD"),
        ("sampling_probability", float, 1.0, "white_box: with which an example joins a step"),
        ("dataset", str, "digits", "black_box: the private examples; as the pipeline takes it"),
        ("data_dir", str, "", "black_box: where TFDS keeps its data sets"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default: {default!r})")
    parser.add_argument(
        "--canaries", type=int, help="examples that are planted (default: 50000 white_box, 1000 black_box)"
    )
    parser.add_argument("--optimizer", default="sgd", choices=OPTIMIZER_NAMES, help="white_box (default: sgd)")
    parser.add_argument(
        "--method",
        default="gaussian_mixture",
        choices=METHODS,
        help="black_box (default: gaussian_mixture)",
    )
    parser.add_argument(
        "--seed", type=int, help="makes everything repeatable, noise included (default: the operating system's entropy)"
    )
    return parser.parse_args(arguments)


def _white_box(flags: argparse.Namespace, budget: PrivacyBudget, canaries: int) -> Callable[[NoiseSource], AuditResult]:
    """A function from a noise source to an audit of the optimizer."""
    from tfdpgen.attacks.audit import OPTIMIZERS, audit_optimizer, canary_plan, choose_guesses

    plan = canary_plan(budget, canaries, flags.steps, flags.sampling_probability)
    numbers = choose_guesses(plan, budget.delta, flags.confidence)

    def run(noise: NoiseSource) -> AuditResult:
        return audit_optimizer(
            plan,
            budget.delta,
            optimizer_class=OPTIMIZERS[flags.optimizer],
            numbers=numbers,
            confidence=flags.confidence,
            noise=noise,
        )

    return run


def _black_box(flags: argparse.Namespace, budget: PrivacyBudget, canaries: int) -> Callable[[NoiseSource], AuditResult]:
    """A function from a noise source to an audit of the method."""
    from tfdpgen.attacks.audit import audit_release
    from tfdpgen.data import load_splits
    from tfdpgen.methods import train

    examples = load_splits(flags.dataset, data_dir=flags.data_dir or None).train.in_memory()

    def run(noise: NoiseSource) -> AuditResult:
        seed = int(noise.numpy_generator().integers(2**31))
        return audit_release(
            lambda joined: train(
                flags.method,
                joined,
                budget,
                seed=seed,
                insecure_reproducible=not noise.is_secure,
                verbose=0,
            ),
            examples,
            budget,
            canaries=canaries,
            method=flags.method,
            confidence=flags.confidence,
            seed=seed,
            noise=noise,
        )

    return run


def _line(result: AuditResult) -> str:
    """A row of the table."""
    right = f"{result.right}/{result.guesses}"
    independent = result.facts.get("lower_bound_independent")
    independent = "-" if independent is None else f"{independent:.3f}"
    return (
        f"{result.claimed_epsilon:15.3f}   {result.lower_bound:11.3f}   {result.lower_bound_gaussian:11.3f}   "
        f"{independent:>15}   {right:>18}   {result.canaries:8d}   {result.seconds:7.1f}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
