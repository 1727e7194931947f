"""Draws what `benchmarks/utility.py` has measured: p2 against epsilon, published methods beside ours.

    python benchmarks/utility.py --data_dir=DIR --method=gaussian_mixture --epsilon=1 --results=results.jsonl
    python benchmarks/draw_utility.py --results=results.jsonl --svg=results.svg

Each of our points is the mean of the runs on MNIST's test images that the file holds. Published figures are those of
DPImageBench or of the methods' authors, on the same images by classifiers of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from markupsafe import Markup, escape

from tfdpgen.report.charts import Axis, Line, line_chart

PUBLISHED = {  # epsilon: p2
    "DP-MERF": {1.0: 0.803, 10.0: 0.813},
    "DP-GAN (DPImageBench)": {1.0: 0.924, 10.0: 0.927},
    "Private GANs, revisited": {10.0: 0.950},
    "DPDM (diffusion)": {1.0: 0.892, 10.0: 0.977},
    "DP-FETA (diffusion)": {1.0: 0.956, 10.0: 0.981},
    "FETA-Pro (diffusion)": {1.0: 0.971},
}
LEGEND_LINE = 19  # pixels
COLOURS = (
    "#1b6ca8",
    "#b3541e",
    "#2e7d4f",
    "#7a3e9d",
    "#a8862a",
    "#b0305c",
    "#3a3f8f",
    "#00838f",
    "#6d4c41",
    "#78909c",
    "#c2185b",
)
STYLE = "text { font: 12px sans-serif; fill: #333; } .grid { stroke: #ddd; } .line { fill: none; stroke-width: 2; }"


def curves(path: Path) -> list[Line]:
    """A line for each method and kind of examples: mean p2 at each epsilon."""
    points: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for text in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(text)
        if (run["dataset"], run["split"]) != ("mnist", "test"):
            continue
        for column, kind, share in (("p2", "plain", 0.0), ("p2_augmented", "augmented", run["labeller_share"])):
            if column in run and run["labeller_share"] == share:  # plain ones are worth less beside a labeller
                points[f"{run['method']}, {kind}"][run["budget"]["epsilon"]].append(run[column])
    return [
        Line(name, sorted(measured), [statistics.mean(measured[epsilon]) for epsilon in sorted(measured)])
        for name, measured in sorted(points.items())
    ]


def draw(ours: list[Line]) -> str:
    """A standalone SVG picture."""
    published = [Line(name, list(points), list(points.values())) for name, points in PUBLISHED.items()]
    lines = [*ours, *published]
    x, y = Axis("epsilon", 0.1, 100.0, is_log=True), Axis("p2", 0.79, 1.0)
    chart = str(line_chart("p2 against epsilon", x, y, lines))
    body = chart[chart.index(">", chart.index("<svg")) + 1 : chart.index("</svg>")]
    legend, styles = [], []
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        dashes = "" if number < len(ours) else " stroke-dasharray: 4 3;"
        styles.append(f".series-{number} {{ stroke: {colour};{dashes} }}")
        at = 350 + LEGEND_LINE * number
        values = ", ".join(f"{value:.3f} at {epsilon:g}" for epsilon, value in zip(line.x, line.y, strict=True))
        legend.append(f'<line class="line series-{number}" x1="58" x2="82" y1="{at - 4}" y2="{at - 4}"/>')
        legend.append(Markup('<text x="90" y="{}">{}: {}</text>').format(at, line.name, values))
        # A point of each measurement, since a line of one point would not show.
        for epsilon, value in zip(line.x, line.y, strict=True):
            left, top = 58 + x.place(epsilon) * 390, 284 - y.place(value) * 272
            legend.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>')
    height = 350 + LEGEND_LINE * len(lines)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 {height}" width="560" height="{height}">',
            f"<title>{escape('p2 against epsilon on MNIST')}</title><style>{STYLE} {' '.join(styles)}</style>",
            f'<rect width="560" height="{height}" fill="#fff"/>',
            body,
            *(str(part) for part in legend),
            "</svg>\n",
        ]
    )


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description="Draws p2 against epsilon.")
    parser.add_argument("--results", required=True, help="file of benchmarks/utility.py --results")
    parser.add_argument("--svg", required=True, help="file to write")
    flags = parser.parse_args()
    ours = curves(Path(flags.results))
    if not ours:
        parser.error(f"argument --results: {flags.results} should hold runs on MNIST's test images; it holds none.")
    Path(flags.svg).write_text(draw(ours), encoding="utf-8")
    print(f"{flags.svg}: {len(ours)} lines of ours, {len(PUBLISHED)} published")


if __name__ == "__main__":
    main()
