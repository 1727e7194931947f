"""Prints the table of docs/results.md from the runs that `benchmarks/utility.py --results` has written.

    python benchmarks/results_table.py                                   # current and former runs that are kept here
    python benchmarks/results_table.py --current=results.jsonl --former=

Each cell is the mean of the runs, and the least and the greatest of them where there are several.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "results"
_DATA = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_METHODS = {"class_gaussian": "gaussian_mixture", "stroke_vae": "latent_gaussian"}  # former name: present name
_COLUMNS = "data", "epsilon", "method", "runs", "p1", "p2", "p3", "p4", "Frechet distance", "seconds"


def table(current: str, former: str) -> str:
    """The runs of two files as Markdown, former ones in italics below those that have taken their place."""
    runs: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for number, path in enumerate((current, former)):
        for line in Path(path).read_text(encoding="utf-8").splitlines() if path else ():
            run = json.loads(line)
            kind = _METHODS.get(run["method"], run["method"])
            place = list(_DATA).index(run["dataset"]), run["budget"]["epsilon"], kind, run["labeller_share"], number
            runs[place].append(run)
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for (place, epsilon, _, share, is_former), some in sorted(runs.items()):
        name = f"`{some[0]['method']}`" + (f", labeller {_number(share, 1)}" if share else "")
        p2 = _spread(some, "p2", 3)
        if "p2_augmented" in some[0]:
            p2 += f"; augmented {_spread(some, 'p2_augmented', 3)}"
        cells = (
            list(_DATA.values())[place],
            f"{epsilon:g}",
            f"*former {name}*" if is_former else name,
            str(len(some)),
            _number(statistics.mean(run["p1"] for run in some), 3),
            p2,
            _spread(some, "p3", 3),
            _spread(some, "p4", 3),
            _spread(some, "fid", 1),
            f"{max(1, min(run['seconds_train'] for run in some)):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(runs: list[dict[str, Any]], name: str, digits: int) -> str:
    values = [run[name] for run in runs]
    mean, least, greatest = (_number(value, digits) for value in (statistics.mean(values), min(values), max(values)))
    return mean if least == greatest else f"{mean} ({least} to {greatest})"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if digits == 3 else text


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="The table of docs/results.md.")
    parser.add_argument("--current", default=str(_FOLDER / "current.jsonl"), help="runs of this version")
    parser.add_argument("--former", default=str(_FOLDER / "former.jsonl"), help="runs of a former one; empty for none")
    flags = parser.parse_args()
    print(table(flags.current, flags.former))


if __name__ == "__main__":
    main()
