"""Prints the tables of docs/results.md and docs/methods.md from runs that `benchmarks/utility.py --results` wrote.

    python benchmarks/results_table.py                                   # current and former runs that are kept here
    python benchmarks/results_table.py --current=results.jsonl --former=

A cell of the first table is the mean of the runs, and the least and the greatest of them where there are several. The
second one sets all methods side by side, with what a training took. The third has the means of p2, p3 and the CNN's
Frechet distance before and after.
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
_WAVELETS = "distance, wavelets"  # of no run that was measured before there were two distances
_COLUMNS = "data", "epsilon", "method", "runs", "p1", "p2", "p3", "p4", "distance, CNN", _WAVELETS, "seconds"

Runs = dict[tuple, list[dict[str, Any]]]


def read(path: str) -> Runs:
    """The runs of a file by data set, epsilon, method (by its present name, what public images it had, and whose the
    images were) and share of the labeller.
    """
    runs: Runs = defaultdict(list)
    for line in Path(path).read_text(encoding="utf-8").splitlines() if path else ():
        run = json.loads(line)
        kind = _METHODS.get(run["method"], run["method"]), run.get("public_dataset", ""), run.get("users", "")
        runs[list(_DATA).index(run["dataset"]), run["budget"]["epsilon"], kind, run["labeller_share"]].append(run)
    return runs


def table(runs: Runs) -> str:
    """The runs as Markdown, a line for each data set, epsilon and method."""
    has_wavelets = any("fid_scattering" in run for some in runs.values() for run in some)
    columns = [column for column in _COLUMNS if has_wavelets or column != _WAVELETS]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for (place, epsilon, (name, public, users), share), some in sorted(runs.items()):
        p2 = _spread(some, "p2", 3)
        if "p2_augmented" in some[0]:
            p2 += f"; augmented {_spread(some, 'p2_augmented', 3)}"
        cells = (
            list(_DATA.values())[place],
            f"{epsilon:g}",
            ", ".join(filter(None, (f"`{name}`", public, users, f"labeller {share:g}" if share else ""))),
            str(len(some)),
            _mean(some, "p1", 3),
            p2,
            _spread(some, "p3", 3),
            _mean(some, "p4", 3),
            _spread(some, "fid_cnn", 1),
            *([_spread(some, "fid_scattering", 4)] if has_wavelets else []),
            f"{max(1, min(run['seconds_train'] for run in some)):.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def changes(current: Runs, former: Runs) -> str:
    """Means before and after, a line for each method and a column for each data set and epsilon."""
    settings = sorted({(place, epsilon) for place, epsilon, _, _ in former})
    titles = [f"{list(_DATA.values())[place]} {epsilon:g}" for place, epsilon in settings]
    lines = [f"| p2 / p3 / distance | {' | '.join(titles)} |", "|" + "---|" * (len(titles) + 1)]
    for name in sorted({name for _, _, (name, *_), _ in former}):
        before = next(key for key, value in (*_METHODS.items(), (name, name)) if value == name)
        for title, runs in ((f"former `{before}`", former), (f"`{name}`", current)):
            cells = []
            for place, epsilon in settings:
                some = runs.get((place, epsilon, (name, "", ""), 0.0))
                cells.append(
                    " / ".join((_mean(some, "p2", 3), _mean(some, "p3", 2), _mean(some, "fid_cnn", 0))) if some else ""
                )
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def side_by_side(runs: Runs) -> str:
    """Plain runs of all methods at epsilon 1 and 10, with what a training took; as Markdown.

    Seconds are the CPU's, or the clock's of runs on one core that did not note the CPU's.
    """
    columns = "data", "epsilon", "method", "runs", "p1", "p2", "p3", "p4", "distance", "CPU seconds", "GiB"
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for (place, epsilon, (name, public, users), share), some in sorted(runs.items()):
        if share or epsilon not in (1.0, 10.0):
            continue
        seconds = min(run.get("cpu_seconds_train", run["seconds_train"]) for run in some)
        cells = (
            list(_DATA.values())[place],
            f"{epsilon:g}",
            ", ".join(filter(None, (f"`{name}`", public, users))),
            str(len(some)),
            *(_mean(some, column, 3) for column in ("p1", "p2", "p3", "p4")),
            _mean(some, "fid_cnn", 1),
            f"{max(1, seconds):.0f}",
            _spread(some, "peak_gib_train", 1),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(runs: list[dict[str, Any]], name: str, digits: int) -> str:
    return _number(statistics.mean(run[name] for run in runs), digits)


def _spread(runs: list[dict[str, Any]], name: str, digits: int) -> str:
    values = [run[name] for run in runs if name in run]
    if not values:
        return ""
    mean, least, greatest = (_number(value, digits) for value in (statistics.mean(values), min(values), max(values)))
    return mean if least == greatest else f"{mean} ({least} to {greatest})"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if digits > 1 else text


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="The tables of docs/results.md and docs/methods.md.")
    parser.add_argument("--current", default=str(_FOLDER / "current.jsonl"), help="runs of this version")
    parser.add_argument("--former", default=str(_FOLDER / "former.jsonl"), help="runs of a former one; empty for none")
    flags = parser.parse_args()
    current, former = read(flags.current), read(flags.former)
    print(table(current))
    print("\n" + side_by_side(current))
    if former:
        print("\n" + changes(current, former))


if __name__ == "__main__":
    main()
