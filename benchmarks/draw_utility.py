"""Draws what `benchmarks/utility.py` has measured: p2 against p3, and where published methods lie on the axis of p2.

    python benchmarks/utility.py --data_dir=DIR --method=gaussian_mixture --epsilon=1 --results=results.jsonl
    python benchmarks/draw_utility.py --results=results.jsonl --svg=results.svg
    python benchmarks/draw_utility.py --results=results.jsonl --svg=methods.svg --whole

A point is the mean of a method's plain runs on test images of MNIST or Fashion-MNIST, or, with `--whole`, of the digits
too, on axes from 0 to 1 that have room for all methods, without published ones. Published figures are those of
DPImageBench or of the methods' authors, on the same images by classifiers of their own; none of these sources has p3,
so that they are marks below the axis.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from markupsafe import Markup

from tfdpgen.report.charts import Axis

PUBLISHED = {  # data, epsilon: p2
    ("mnist", 1.0): {"DP-MERF": 0.803, "DP-GAN": 0.924, "DPDM": 0.892, "DP-FETA": 0.956, "FETA-Pro": 0.971},
    ("mnist", 10.0): {"DP-MERF": 0.813, "DP-GAN": 0.927, "Bie et al.": 0.950, "DPDM": 0.977, "DP-FETA": 0.981},
    ("fashion_mnist", 1.0): {"DP-MERF": 0.622, "DP-GAN": 0.718, "DPDM": 0.764, "DP-FETA": 0.817},
    ("fashion_mnist", 10.0): {"DP-MERF": 0.622, "DP-GAN": 0.703, "DPDM": 0.856, "DP-FETA": 0.873},
}
AXES = {  # data: name, p2, p3
    "mnist": ("MNIST", Axis("p2", 0.79, 1.0), Axis("p3", 0.8, 1.0)),
    "fashion_mnist": ("Fashion-MNIST", Axis("p2", 0.6, 0.9), Axis("p3", 0.7, 1.0)),
}
WHOLE = {
    name: (title, Axis("p2", 0.0, 1.0), Axis("p3", 0.0, 1.0))
    for name, title in (("digits", "Digits"), ("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST"))
}
COLOURS = ("#1b6ca8", "#b3541e", "#2e7d4f", "#7a3e9d", "#a8862a", "#b0305c", "#3a3f8f", "#00838f", "#6d6d6d", "#000000")
STYLE = "text { font: 12px sans-serif; fill: #333; } .small { font-size: 10px; fill: #777; } .grid { stroke: #ddd; }"
WIDTH, PANEL, DEPTH = 800, 290, 190  # of the picture; of a panel
LEFT, TOP, RIGHT_PANEL, LOWER_PANEL = 60, 40, 390, 310

Means = dict[tuple[str, float], dict[str, tuple[float, float]]]


def means(path: Path, datasets: Collection[str]) -> Means:
    """Mean p2 and p3 of each method, by data and epsilon, 1 or 10."""
    runs: dict[tuple[str, float], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for text in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(text)
        place = run["dataset"], run["budget"]["epsilon"]
        is_plain = run["split"] == "test" and not run["labeller_share"]  # which costs plain ones a share
        if is_plain and place[0] in datasets and place[1] in (1.0, 10.0):
            name = ", ".join(filter(None, (run["method"], run.get("public_dataset"), run.get("users"))))
            runs[place][name].append((run["p2"], run["p3"]))
    return {
        place: {
            name: (statistics.mean(p2 for p2, _ in pairs), statistics.mean(p3 for _, p3 in pairs))
            for name, pairs in sorted(methods.items())
        }
        for place, methods in runs.items()
    }


def draw(measured: Means, axes: Mapping[str, tuple[str, Axis, Axis]]) -> str:
    """A standalone SVG picture of two panels for each data set."""
    names = sorted({name for methods in measured.values() for name in methods})
    height = TOP + LOWER_PANEL * len(axes) + 10 + 18 * (1 + len(names) // 3)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    parts = []
    for row, (dataset, (title, x, y)) in enumerate(axes.items()):
        for column, epsilon in enumerate((1.0, 10.0)):
            left, top = LEFT + RIGHT_PANEL * column, TOP + LOWER_PANEL * row
            heading = f"{title}, epsilon {epsilon:g}"
            points, published = (
                measured.get((dataset, epsilon), {}),
                {} if axes is WHOLE else PUBLISHED[dataset, epsilon],
            )
            parts += _panel(heading, x, y, left, top, points, published, colours)
    for number, name in enumerate(names):
        across, down = LEFT + 240 * (number % 3), TOP + LOWER_PANEL * len(axes) + 10 + 18 * (number // 3)
        parts.append(Markup('<circle cx="{}" cy="{}" r="4" fill="{}"/>').format(across, down - 4, colours[name]))
        parts.append(Markup('<text x="{}" y="{}">{}</text>').format(across + 10, down, name))
    size = Markup('viewBox="0 0 {0} {1}" width="{0}" height="{1}"').format(WIDTH, height)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<title>p2 against p3</title><style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(
    heading: str,
    x: Axis,
    y: Axis,
    left: int,
    top: int,
    points: dict[str, tuple[float, float]],
    published: dict[str, float],
    colours: dict[str, str],
) -> list[Markup]:
    """Axes, our points, and marks of published methods below."""
    bottom = top + DEPTH
    parts = [Markup('<text x="{}" y="{}">{}</text>').format(left, top - 12, heading)]
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    for tick in x.ticks:
        at = left + PANEL * x.place(tick)
        parts.append(line.format(at, at, top, bottom))
        parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{:g}</text>').format(at, bottom + 16, tick))
    for tick in y.ticks:
        at = bottom - DEPTH * y.place(tick)
        parts.append(line.format(left, left + PANEL, at, at))
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{:g}</text>').format(left - 6, at + 4, tick))
    parts.append(Markup('<text x="{}" y="{}">{}</text>').format(left + PANEL + 14, bottom + 16, x.name))
    parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(left - 6, top - 12, y.name))
    for name, (p2, p3) in points.items():
        if not (x.low <= p2 <= x.high and y.low <= p3 <= y.high):
            continue  # --whole has them
        place = left + PANEL * x.place(p2), bottom - DEPTH * y.place(p3)
        parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" fill="{}"/>').format(*place, colours[name]))
    for number, (name, p2) in enumerate(sorted(published.items(), key=lambda pair: pair[1])):
        at, down = left + PANEL * x.place(p2), bottom + 30 + 11 * (number % 3)
        parts.append(Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}" stroke="#999"/>').format(at, bottom, down - 8))
        parts.append(Markup('<text class="small" x="{}" y="{}" text-anchor="middle">{}</text>').format(at, down, name))
    return parts


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description="Draws p2 against p3.")
    parser.add_argument("--results", required=True, help="file of benchmarks/utility.py --results")
    parser.add_argument("--svg", required=True, help="file to write")
    parser.add_argument("--whole", action="store_true", help="axes from 0 to 1, and the digits too")
    flags = parser.parse_args()
    axes = WHOLE if flags.whole else AXES
    measured = means(Path(flags.results), axes)
    if not measured:
        parser.error(f"argument --results: {flags.results} should hold runs on test images of MNIST; it holds none.")
    Path(flags.svg).write_text(draw(measured, axes), encoding="utf-8")
    print(f"{flags.svg}: {sum(len(methods) for methods in measured.values())} points")


if __name__ == "__main__":
    main()
