"""The report: one self-contained HTML page about a release, for a person who has to decide whether to rely on it.

    page = render_report(summary, synthetic)                # summary: the dict of summary.json
    write_report("output/report.html", summary, synthetic)  # synthetic: a LabeledDataset of generated images

The page says what was promised, shows generated images, and sets what was measured beside what theory allows. It needs
no network and no script: images are data URIs, intervals and charts are inline SVG. Everything that comes from the
summary or the data set is escaped. Metrics that are computed on private examples without noise are marked internal on
the page. It shows generated images only, never a private example, not even beside them for comparison.

The upper bound on a membership attack's advantage follows from the definition of differential privacy: Kairouz et al.
2015, "The Composition Theorem for Differential Privacy"; Humphries et al. 2023, "Investigating Membership Inference
Attacks under Data Dependencies".
"""

from __future__ import annotations

import base64
import io
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tfdpgen.attacks import privacy_loss_upper_bound, upper_bounds_of
from tfdpgen.data import LabeledDataset
from tfdpgen.report.curves import epsilon_chart, roc_chart
from tfdpgen.report.reading import readings

_TILE_PIXELS = 56  # smallest height of an enlarged sample
_GAP_PIXELS = 8  # between two samples of a row
_LARGEST_EPSILON = 300.0  # beyond it e^epsilon overflows, and every upper bound is 1 to double precision anyway
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_METRICS = (  # key, name, lowest and highest possible value, what guessing reaches
    ("accuracy", "accuracy", 0.0, 1.0, 0.5),
    ("privacy_loss", "privacy loss", -1.0, 1.0, 0.0),
    ("auc", "AUC", 0.0, 1.0, 0.5),
    ("tpr_at_1_percent_fpr", "TPR at 1 % FPR", 0.0, 1.0, 0.01),
    ("tpr_at_01_percent_fpr", "TPR at 0.1 % FPR", 0.0, 1.0, 0.001),
)
_FIDELITY = (  # key, name, what it says
    ("fid", "Fréchet distance", "of means and covariances; 0 is best"),
    ("precision", "precision", "share of generated images near real ones"),
    ("recall", "recall", "share of real images near generated ones"),
    ("density", "density", "about 1 where generated images lie as densely as real ones"),
    ("coverage", "coverage", "share of real images with a generated one close by"),
    ("diversity", "diversity within classes", "1: images of a class differ as much as real ones do"),
    ("vendi_score", "Vendi score", "number of different images, in effect"),
    ("class_imbalance", "class imbalance", "distance of the shares of classes; 0 is best"),
)


PUBLIC = (
    "method",
    "num_examples",
    "num_synthetic",
    "label_distribution",
    "privacy",
    "release",
    "versions",
    "published_metrics",
)  # keys of a summary with nothing that was computed on private examples without noise


def public_part(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of a summary may be published with the release: nothing that was computed on private examples without noise.

    The name of the private data set is left out too, since it may be a path that says whose the examples are; times,
    since they may depend on the examples.
    """
    return {key: summary[key] for key in PUBLIC if key in summary}


def render_report(
    summary: Mapping[str, Any],
    synthetic: LabeledDataset,
    *,
    samples_per_class: int = 10,
    temperatures: Mapping[float, npt.NDArray[np.uint8]] | None = None,
    public: bool = False,
) -> str:
    """The page as text.

    Args:
      summary: as in summary.json: `privacy` (`PrivacyStatement.to_dict()`) is needed; of `dataset`, `method`,
        `num_examples`, `utility`, `fidelity`, `attacks`, `strongest_attack`, `memorisation`, `audit`, `release`,
        `versions` and `seconds` the page says so where one is missing. Without `release: true` the page is marked as
        not for release. `published_metrics` and `ledger` are shown where they are there. `num_synthetic` says how many
        images there are where `synthetic` holds only the first of them.
      synthetic: generated images; the first `samples_per_class` of each class are shown.
      samples_per_class: images in a row of the sample grid.
      temperatures: images [k, h, w, c] of the same labels and latents, by the temperature that they are sampled at.
      public: whether to make the page that can be sent along with the data: of `public_part` of the summary alone.

    Returns:
      A complete HTML document that refers to nothing outside itself.

    Raises:
      ValueError: if `summary` holds no epsilon and delta, or if `samples_per_class` is less than 1.
    """
    if public:
        summary = public_part(summary)
    privacy = summary.get("privacy") or {}
    missing = [f"privacy.{name}" for name in ("epsilon", "delta") if privacy.get(name) is None]
    if missing:
        raise ValueError(
            f"`summary` should hold {' and '.join(missing)}: a report without them promises nothing; "
            f"got {sorted(summary)} with privacy {sorted(privacy)}. Pass PrivacyStatement.to_dict() as `privacy`."
        )
    if samples_per_class < 1:
        raise ValueError(f"`samples_per_class` should be at least 1; got {samples_per_class!r}.")
    epsilon, delta = min(float(privacy["epsilon"]), _LARGEST_EPSILON), float(privacy["delta"])
    upper_bound = privacy_loss_upper_bound(epsilon, delta)
    replaced = privacy.get("epsilon_replace_one")
    replaced = None if replaced is None else min(float(replaced), _LARGEST_EPSILON)
    exchange = upper_bounds_of(epsilon, delta, replaced)["exchange"]["privacy_loss"]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            public=public,
            privacy=privacy,
            has_steps=_has_steps(privacy),
            factor=math.exp(epsilon),
            upper_bound=upper_bound,
            exchange_upper_bound=exchange,
            rows=[_sample_row(synthetic, label, samples_per_class) for label in range(synthetic.spec.num_classes)],
            image_shape=synthetic.spec.image_shape,
            num_synthetic=summary.get("num_synthetic") or len(synthetic),
            attacks=[
                _attack(name, metrics, exchange, privacy) for name, metrics in (summary.get("attacks") or {}).items()
            ],
            strongest=_strongest(summary.get("strongest_attack"), exchange),
            audit=_audit(summary.get("audit")),
            memorisation=_memorisation(summary.get("memorisation")),
            most_examples=_most_examples(summary.get("utility") or {}),
            reasons=_reasons(summary.get("utility") or {}),
            spaces=list((summary.get("fidelity") or {}).items()),
            fidelity_measures=_FIDELITY,
            steps_chart=epsilon_chart(privacy),
            readings=readings(summary),
            accounts=(summary.get("ledger") or {}).get("accounts") or [],
            is_balanced=summary.get("label_distribution") is None,
            temperatures=[
                {"name": f"{temperature:g}", "uri": _strip(images, len(images))}
                for temperature, images in sorted((temperatures or {}).items())
            ],
        )
    )


def write_report(
    path: str | os.PathLike[str],
    summary: Mapping[str, Any],
    synthetic: LabeledDataset,
    *,
    samples_per_class: int = 10,
    temperatures: Mapping[float, npt.NDArray[np.uint8]] | None = None,
    public: bool = False,
) -> None:
    """Writes `render_report`'s page to `path`; what has that name is complete, and replaces an earlier page."""
    path = pathlib.Path(path)
    page = render_report(
        summary, synthetic, samples_per_class=samples_per_class, temperatures=temperatures, public=public
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staging:
        staged = pathlib.Path(staging, path.name)
        staged.write_text(page, encoding="utf-8")
        staged.replace(path)


def _environment() -> jinja2.Environment:
    """Escapes everything; a part that the summary lacks is undefined rather than an error, and the page says so."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfdpgen"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, event=_event, rate=_rate, interval=_interval)
    return environment


def _number(value: Any) -> str:
    """A quantity: 1,077 or 2.981 or 10⁻⁵; words and tuples as they are."""
    if value is None or isinstance(value, jinja2.Undefined):
        return "not stated"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return str(value)
    if not math.isfinite(value):
        return "unbounded" if value > 0 else str(value)
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    mantissa, _, exponent = f"{value:,.4g}".partition("e")
    if not exponent:
        return mantissa
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa} · {power}"


def _has_steps(privacy: Mapping[str, Any]) -> bool:
    """Whether there were steps of DP-SGD, as far as a statement says: other mechanisms say theirs in their events."""
    names = [str(mechanism.get("name")) for mechanism in privacy.get("mechanisms") or ()]
    return privacy.get("sampling") != "none" and (not names or any("DP-SGD" in name for name in names))


def _event(text: Any) -> str:
    """An event with its numbers to four digits: the statement has all of them."""
    return re.sub(r"\d+\.\d{4,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.4g}", str(text))


def _rate(value: Any) -> str:
    """A rate to three decimals."""
    if value is None or isinstance(value, jinja2.Undefined):
        return "not measured"
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _interval(values: Any) -> str:
    """[0.912, 0.943], or that there is none."""
    if isinstance(values, jinja2.Undefined) or not values:
        return "no interval"
    return f"[{', '.join(_rate(value) for value in values)}]"


def _bar(
    name: str,
    value: float | None,
    interval: Sequence[float] | None,
    axis: tuple[float, float],
    chance: float | None,
    upper_bound: float | None = None,
) -> dict[str, Any]:
    """A metric on an axis as the template draws it, with its places in per cent."""
    return {
        "name": name,
        "value": value,
        "interval": interval,
        "axis": axis,
        "upper_bound": upper_bound,
        "chance_at": _place(chance, *axis),
        "value_at": _place(value, *axis),
        "interval_at": [_place(bound, *axis) for bound in interval] if interval else None,
        "bound_at": _place(upper_bound, *axis),
    }


def _attack(name: str, metrics: Mapping[str, Any], upper_bound: float, privacy: Mapping[str, Any]) -> dict[str, Any]:
    """One attack as the template wants it: a row for each metric, and the curve."""
    is_membership = bool(metrics.get("is_membership"))
    epsilon, delta, replaced = (privacy.get(key) for key in ("epsilon", "delta", "epsilon_replace_one"))
    bars = [
        _bar(
            label,
            metrics.get(key),
            metrics.get(f"{key}_interval"),
            (low, high),
            chance,
            upper_bound if is_membership and key == "privacy_loss" else None,
        )
        for key, label, low, high, chance in _METRICS
    ]
    interval = metrics.get("privacy_loss_interval")
    return {
        "name": name,
        "is_membership": is_membership,
        "description": metrics.get("description"),
        "access": metrics.get("access"),
        "paper": metrics.get("paper"),
        "chart": roc_chart(
            name, metrics, epsilon=float(epsilon or 0), delta=float(delta or 0), epsilon_replace_one=replaced
        ),
        "repetitions": metrics.get("repetitions"),
        "num_members": metrics.get("num_members"),
        "num_nonmembers": metrics.get("num_nonmembers"),
        "metrics": bars,
        "contradicts": is_membership and bool(interval) and interval[0] > upper_bound,
    }


def _strongest(metrics: Mapping[str, Any] | None, upper_bound: float) -> dict[str, Any] | None:
    """The strongest membership attack, with its interval beside the upper bound."""
    if not metrics:
        return None
    bar = _bar("privacy loss", metrics.get("privacy_loss"), metrics.get("interval"), (-1.0, 1.0), 0.0, upper_bound)
    return {**metrics, "bar": bar}


def _audit(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Epsilon as claimed and as an audit could show it, on one axis."""
    if not metrics:
        return None
    claimed, shown = metrics.get("claimed_epsilon"), metrics.get("lower_bound")
    finite = [value for value in (claimed, shown) if value is not None and math.isfinite(value)]
    axis = (0.0, 1.1 * max([*finite, 0.1]))
    others = {
        name.replace("_", " "): value
        for name, value in metrics.items()
        if name not in ("claimed_epsilon", "lower_bound", "description") and not isinstance(value, (dict, list))
    }
    return {
        "bars": [
            _bar("ε as claimed", claimed, None, axis, None),
            _bar("ε shown at least", shown, None, axis, None, upper_bound=claimed),
        ],
        "description": metrics.get("description"),
        "others": others,
        "contradicts": len(finite) == 2 and finite[1] > finite[0],
    }


def _memorisation(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The description, and the numbers with their names in words."""
    if not metrics:
        return None
    numbers = {name.replace("_", " "): value for name, value in metrics.items() if name != "description"}
    return {"description": metrics.get("description"), "numbers": numbers}


def _most_examples(utility: Mapping[str, Any]) -> int | None:
    """The largest number of examples that a classifier beside the CNN was given."""
    given = [
        n for metrics in (utility.get("classifiers") or {}).values() for n in metrics.get("num_examples") or () if n
    ]
    return max(given, default=None)


def _reasons(utility: Mapping[str, Any]) -> dict[str, list[str]]:
    """Why accuracies are missing: the metrics by the reason that they share, those of a classifier with its name."""
    reasons: dict[str, list[str]] = {}
    by_classifier = {"": utility, **(utility.get("classifiers") or {})}
    for classifier, metrics in by_classifier.items():
        for metric, reason in (metrics.get("not_measured") or {}).items():
            if metric != "accuracy_loss":
                reasons.setdefault(reason, []).append(f"{metric} {classifier.replace('_', ' ')}".strip())
    return reasons


def _place(value: float | None, low: float, high: float) -> float | None:
    """Where a value lies between `low` and `high`, in per cent; nowhere if there is no finite value."""
    if value is None or not math.isfinite(value):
        return None
    return round(100 * (min(max(value, low), high) - low) / (high - low), 2)


def _sample_row(synthetic: LabeledDataset, label: int, samples: int) -> dict[str, Any]:
    """The first images of a class, as one PNG in a data URI."""
    images = synthetic.images[np.flatnonzero(synthetic.labels == label)[:samples]]
    return {"name": synthetic.spec.name_of(label), "count": len(images), "uri": _strip(images, samples)}


def _strip(images: npt.NDArray[np.uint8], places: int) -> str | None:
    """Images side by side, enlarged without smoothing, on a transparent ground that has room for `places` of them."""
    if not len(images):
        return None
    height, width, channels = images.shape[1:]
    scale = max(1, -(-_TILE_PIXELS // height))
    step = width * scale + _GAP_PIXELS
    strip = Image.new("RGBA", (places * step - _GAP_PIXELS, height * scale))
    for place, pixels in enumerate(images):
        tile = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        strip.paste(tile.resize((width * scale, height * scale), Image.Resampling.NEAREST), (place * step, 0))
    buffer = io.BytesIO()
    strip.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
