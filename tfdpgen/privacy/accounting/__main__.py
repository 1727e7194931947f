"""The accountant on the command line: what a DP-SGD plan costs, or what a budget allows.

python -m tfdpgen.privacy.accounting epsilon --num_examples=60000 --batch_size=512 --steps=3000 --noise_multiplier=1.1
python -m tfdpgen.privacy.accounting noise --num_examples=60000 --batch_size=512 --steps=3000 --epsilon=3
python -m tfdpgen.privacy.accounting steps --num_examples=60000 --batch_size=512 --noise_multiplier=1.1 --epsilon=3
python -m tfdpgen.privacy.accounting batch_size --num_examples=60000 --steps=3000 --noise_multiplier=1.1 --epsilon=3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tfdpgen.privacy import accounting
from tfdpgen.privacy.budget import PrivacyBudget

_FLAGS = {
    "num_examples": (int, "private examples"),
    "batch_size": (int, "examples that a step draws on average (the expected batch size)"),
    "steps": (int, "steps of DP-SGD"),
    "noise_multiplier": (float, "standard deviation of the noise / clip"),
    "epsilon": (float, "the budget"),
}
_QUESTIONS = {
    "epsilon": "what a plan costs",
    "noise": "the least noise within a budget",
    "steps": "the most steps within a budget",
    "batch_size": "the largest expected batch size within a budget",
}
_ANSWERED = {"epsilon": "epsilon", "noise": "noise_multiplier", "steps": "steps", "batch_size": "batch_size"}


def main(arguments: Sequence[str], program: str = "python -m tfdpgen.privacy.accounting") -> int:
    """Answers one question; returns the exit status."""
    flags = _parse(arguments, program)
    plan = {name: getattr(flags, name, None) for name in _FLAGS}
    try:
        _check(plan, flags.delta)
        answer = _answer(flags.question, plan, flags.delta, flags.accountant, flags.neighboring_relation)
    except ValueError as error:
        print(f"accounting: {error}", file=sys.stderr)
        return 2
    print(f"{_ANSWERED[flags.question]}: {answer:.6g}" if isinstance(answer, float) else f"{flags.question}: {answer}")
    if flags.question != "epsilon":
        plan[_ANSWERED[flags.question]] = answer
    for relation in accounting.NEIGHBORING_RELATIONS:
        costs = (f"{_cost(plan, flags.delta, name, relation):.6g} by {name.upper()}" for name in ("pld", "rdp"))
        print(f"epsilon at delta {flags.delta:g}, {relation}: {', '.join(costs)}")
    print("\nAssumptions:", *(f"- {assumption}" for assumption in accounting.ASSUMPTIONS), sep="\n")
    return 0


def _parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The question and its flags."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="DP-SGD's privacy: Poisson sampling, Gaussian noise, neighbours that differ in one example.",
    )
    questions = parser.add_subparsers(dest="question", required=True, metavar="|".join(_QUESTIONS))
    for question, about in _QUESTIONS.items():
        asked = questions.add_parser(question, help=about, description=about)
        for name, (kind, explanation) in _FLAGS.items():
            if name != _ANSWERED[question]:  # epsilon is either the budget or the answer
                asked.add_argument(f"--{name}", type=kind, required=True, help=explanation)
        asked.add_argument("--delta", type=float, default=1e-5, help="of (epsilon, delta) (default: 1e-5)")
        asked.add_argument("--accountant", default="pld", choices=("pld", "rdp"), help="which decides (default: pld)")
        asked.add_argument(
            "--neighboring_relation",
            default="add-or-remove-one",
            choices=accounting.NEIGHBORING_RELATIONS,
            help="what the epsilon or budget is for (default: add-or-remove-one)",
        )
    return parser.parse_args(arguments)


def _check(plan: dict, delta: float) -> None:
    """Refuses facts that make no plan."""
    for name in ("num_examples", "batch_size", "steps"):
        if plan[name] is not None and plan[name] < 1:
            raise ValueError(f"`--{name}` should be at least 1; got {plan[name]}.")
    if plan["batch_size"] is not None and plan["batch_size"] > plan["num_examples"]:
        raise ValueError(
            f"`--batch_size` should be at most --num_examples={plan['num_examples']}; got {plan['batch_size']}."
        )
    if plan["noise_multiplier"] is not None and not plan["noise_multiplier"] > 0:
        raise ValueError(f"`--noise_multiplier` should be greater than 0; got {plan['noise_multiplier']}.")
    PrivacyBudget(plan["epsilon"] or 1.0, delta).check_num_examples(plan["num_examples"])


def _answer(
    question: str, plan: dict, delta: float, accountant: str, relation: accounting.NeighboringRelation
) -> float | int:
    """The figure that was asked for."""
    if question == "epsilon":
        return _cost(plan, delta, accountant, relation)
    budget = PrivacyBudget(plan["epsilon"], delta)

    def make_event(value: float) -> Any:
        return _event(plan | {_ANSWERED[question]: value})

    if question == "noise":
        return accounting.calibrate_noise_multiplier(make_event, budget, accountant, relation)
    if question == "steps":
        return accounting.calibrate_steps(make_event, budget, accountant, relation)
    return accounting.calibrate_batch_size(make_event, budget, plan["num_examples"], accountant, relation)


def _event(plan: dict) -> Any:
    """What the plan does."""
    return accounting.poisson_gaussian_event(
        plan["batch_size"] / plan["num_examples"], plan["noise_multiplier"], plan["steps"]
    )


def _cost(plan: dict, delta: float, accountant: str, relation: accounting.NeighboringRelation) -> float:
    """Epsilon of the plan."""
    return accounting.epsilon_of(_event(plan), delta, accountant, relation)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
