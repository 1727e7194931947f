"""Line charts as inline SVG: no script, no font, no colour of their own; the page's style sheet gives them all three.

    chart = line_chart(
        "ROC of gan_leaks",
        Axis("false positive rate", 1e-3, 1.0, is_log=True),
        Axis("true positive rate", 1e-3, 1.0, is_log=True),
        [Line("gan_leaks", x, y, band=(low, high)), Line("guessing", [1e-3, 1], [1e-3, 1], style="chance")],
    )

Each series has a class, `series-0` and so on or the `style` it asks for, and stands in a legend below the chart. Points
outside the axes are cut off at their edges, since a logarithmic axis has no zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup

_WIDTH, _HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 46
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS = 6


@dataclasses.dataclass(frozen=True)
class Axis:
    """A finite axis.

    Attributes:
      name: beside the axis.
      low: its lower end; greater than 0 on a logarithmic axis.
      high: its upper end.
      is_log: whether equal ratios are equally long.

    Raises:
      ValueError: if the ends do not make an axis.
    """

    name: str
    low: float
    high: float
    is_log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"`low` should be below `high`, both finite; got {self.low!r} and {self.high!r}.")
        if self.is_log and self.low <= 0:
            raise ValueError(f"`low` should be greater than 0 on a logarithmic axis; got {self.low!r}.")

    def place(self, value: float) -> float:
        """Where a value lies between the ends, in [0, 1]; what lies outside is at an end."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """Powers of ten, or multiples of 1, 2, 2.5 or 5 times one."""
        if self.is_log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        size = 10 ** math.floor(math.log10((self.high - self.low) / _MOST_TICKS))
        step = size * next(step for step in _STEPS if (self.high - self.low) / (size * step) <= _MOST_TICKS)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclasses.dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
      name: in the legend.
      x: [n], increasing.
      y: [n].
      style: a class of the style sheet; empty for the next of its colours.
      band: two series [n], lower and upper, between which the ground is tinted; None for none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = ""
    band: tuple[Sequence[float], Sequence[float]] | None = None


def line_chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> Markup:
    """An SVG element and its legend.

    Args:
      title: what is drawn, for those who cannot see it.
      x: the horizontal axis.
      y: the vertical axis.
      lines: drawn in their order; points that are not finite are left out.
    """
    parts = [
        Markup('<figure class="chart"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, _HEIGHT, title
        ),
        *_grid(x, y),
    ]
    styles = _styles(lines)
    for line, style in zip(lines, styles, strict=True):
        if line.band is not None:
            low, high = (_points(x, y, line.x, bound) for bound in line.band)
            outline = [*low, *reversed(high)]
            if outline:
                parts.append(Markup('<polygon class="band {}" points="{}"/>').format(style, _joined(outline)))
    for line, style in zip(lines, styles, strict=True):
        if points := _points(x, y, line.x, line.y):
            parts.append(Markup('<polyline class="line {}" points="{}"/>').format(style, _joined(points)))
    parts.append(Markup("</svg><figcaption>"))
    for line, style in zip(lines, styles, strict=True):
        swatch = Markup(
            '<svg class="swatch" aria-hidden="true"><line class="line {}" x2="100%" y1="50%" y2="50%"/></svg>'
        )
        parts.append(Markup("<span>{}{}</span>").format(swatch.format(style), line.name))
    parts.append(Markup("</figcaption></figure>"))
    return Markup("\n").join(parts)


def _styles(lines: Sequence[Line]) -> list[str]:
    """The class of each line."""
    colours = (f"series-{number}" for number in range(len(lines)))
    return [line.style or next(colours) for line in lines]


def _grid(x: Axis, y: Axis) -> list[Markup]:
    """Grid lines, ticks and the names of the axes."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(at, _TOP, bottom))
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(at, bottom + 17, _label(tick, x))
        )
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(Markup('<line class="grid" x1="{1}" x2="{2}" y1="{0}" y2="{0}"/>').format(at, _LEFT, right))
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 7, round(at + 4, 1), _label(tick, y)
            )
        )
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(
        Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(middle_x, _HEIGHT - 8, x.name)
    )
    parts.append(
        Markup(
            '<text class="name" x="14" y="{0}" text-anchor="middle" transform="rotate(-90 14 {0})">{1}</text>'
        ).format(middle_y, y.name)
    )
    return parts


def _points(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Places on the drawing; points that are not finite have none."""
    finite = [pair for pair in zip(xs, ys, strict=True) if all(math.isfinite(value) for value in pair)]
    return [(_x(x, first), _y(y, second)) for first, second in finite]


def _x(axis: Axis, value: float) -> float:
    """The horizontal place of a value."""
    return round(_LEFT + axis.place(value) * (_WIDTH - _RIGHT - _LEFT), 1)


def _y(axis: Axis, value: float) -> float:
    """The vertical place of a value."""
    return round(_HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _BOTTOM - _TOP), 1)


def _joined(points: Sequence[tuple[float, float]]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{x},{y}" for x, y in points)


def _label(tick: float, axis: Axis) -> str:
    """1,000 or 0.25, and far out on a logarithmic axis 10⁻⁴."""
    if axis.is_log and not 0.0009 < tick < 1000:
        return "10" + str(round(math.log10(tick))).translate(_SUPERSCRIPTS)
    return f"{tick:,.6g}"
