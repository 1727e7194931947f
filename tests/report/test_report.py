"""The report, read back as a browser would read it."""

from __future__ import annotations

import base64
import copy
import html.parser
import io
import math
import pathlib
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from components.publish import INTERNAL
from tfdpgen.attacks import privacy_loss_upper_bound
from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import DPSGD, ClassMeans, NoiseSource, PrivacyPlan
from tfdpgen.privacy.accounting.statement import UNITS
from tfdpgen.report import public_part, render_report, write_report
from tfdpgen.report.page import PUBLIC

_VOID = {"meta", "img", "br", "col", "hr", "input", "link"}


class Page(html.parser.HTMLParser):
    """A parsed page: its visible text, its tags and their attributes; refuses tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"unclosed: {self._open}"
        self.text = " ".join("".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self._text.append(data)

    def having(self, css_class: str) -> list[dict[str, str | None]]:
        """The attributes of the tags of this class."""
        return [attrs for _, attrs in self.tags if css_class in (attrs.get("class") or "").split()]


def _attack_metrics(accuracy: float, half_width: float, auc: float, is_membership: bool) -> dict[str, Any]:
    low, high = accuracy - half_width, accuracy + half_width
    return {
        "accuracy": accuracy,
        "accuracy_interval": [low, high],
        "privacy_loss": 2 * accuracy - 1,
        "privacy_loss_interval": [2 * low - 1, 2 * high - 1],
        "auc": auc,
        "auc_interval": [auc - 0.013, auc + 0.011],
        "repetitions": 7,
        "num_members": 211,
        "num_nonmembers": 223,
        "description": f"Asks about {'membership' if is_membership else 'noise'}.",
        "is_membership": is_membership,
    }


@pytest.fixture(scope="module")
def digits() -> LabeledDataset:
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return LabeledDataset(images, labels.astype(np.int64), DataSpec((8, 8, 1), 10, (0.0, 16.0)))


@pytest.fixture(scope="module")
def _summary() -> dict[str, Any]:
    training = DPSGD(num_examples=1077, expected_batch_size=129, steps=401, l2_norm_clip=1.25, noise_multiplier=3.375)
    means = ClassMeans(10, 64, 1.0, noise_multiplier=9.5)
    plan = PrivacyPlan({"class_means": means, "dp_sgd": training}, 1077, {"class_means": 0.3})
    privacy = plan.statement(2.5e-5, NoiseSource().description).to_dict()
    return {
        "dataset": "digits",
        "method": "c_vae",
        "num_examples": 1077,
        "privacy": privacy,
        "utility": {"p1": 0.9783, "p2": 0.8431, "p3": 0.9012, "p4": 0.9624, "accuracy_loss": 0.1352},
        "attacks": {
            "classifier_noise": _attack_metrics(0.9721, 0.0163, 0.9871, is_membership=False),
            "classifier_holdout": _attack_metrics(0.5173, 0.0312, 0.5214, is_membership=True),
        },
        "release": True,
        "versions": {"tfdpgen": "0.1.0", "tensorflow": "2.15.1"},
        "seconds": {"ingest": 1.23, "train": 31.94},
    }


@pytest.fixture
def summary(_summary: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(_summary)


def test_every_metric_appears(summary: dict[str, Any], digits: LabeledDataset):
    text = Page(render_report(summary, digits)).text
    privacy = summary["privacy"]
    rates = [*summary["utility"].values()]
    for metrics in summary["attacks"].values():
        for metric in ("accuracy", "privacy_loss", "auc"):
            rates += [metrics[metric], *metrics[f"{metric}_interval"]]
    expected = [f"{rate:.3f}" for rate in rates]
    epsilons = ("epsilon", "epsilon_rdp", "epsilon_replace_one", "epsilon_compute_dp_sgd_privacy")
    expected += [f"{privacy[name]:.4g}" for name in (*epsilons, "noise_multiplier", "l2_norm_clip")]
    expected += [f"{mechanism['epsilon']:.4g}" for mechanism in privacy["mechanisms"]]
    expected += [mechanism["event"] for mechanism in privacy["mechanisms"]]
    expected += [*privacy["assumptions"], privacy["unit"], privacy["neighboring_relation"], privacy["noise_source"]]
    expected += [" ".join(privacy[name].split()) for name in ("statement", "compute_dp_sgd_privacy_statement")]
    expected += ["2.5 · 10⁻⁵", "129", "401", "1,077", "1,797", "poisson", "PLD", "digits", "c_vae"]
    expected += ["7 repetitions", "211 private examples", "223 others", "1.2", "31.9", "0.1.0", "2.15.1"]
    assert [metric for metric in expected if metric not in text] == []


def test_the_upper_bound_stands_beside_membership_attacks_alone(summary: dict[str, Any], digits: LabeledDataset):
    page = Page(render_report(summary, digits))
    epsilon, delta = summary["privacy"]["epsilon"], summary["privacy"]["delta"]
    upper_bound = privacy_loss_upper_bound(epsilon, delta)
    replaced = privacy_loss_upper_bound(summary["privacy"]["epsilon_replace_one"], delta)
    by_groups = privacy_loss_upper_bound(2 * epsilon, (1 + math.exp(epsilon)) * delta)
    assert upper_bound < min(replaced, by_groups)
    (line,) = page.having("bound")
    assert float((line["x1"] or "").rstrip("%")) == pytest.approx(50 * (1 + min(replaced, by_groups)), abs=0.01)
    assert f"upper bound {min(replaced, by_groups):.3f}" in page.text
    assert f"at or below (eε − 1 + 2δ) / (eε + 1) = {upper_bound:.3f}" in page.text
    assert "not a membership question" in page.text
    assert "Above the upper bound" not in page.text

    del summary["attacks"]["classifier_holdout"]
    without = Page(render_report(summary, digits))
    assert without.having("bound") == []


def test_an_attack_above_its_upper_bound_is_called_out(summary: dict[str, Any], digits: LabeledDataset):
    summary["privacy"] |= {"epsilon": 0.01, "epsilon_replace_one": 0.02}
    assert "Above the upper bound" not in Page(render_report(summary, digits)).text, (
        "its interval reaches below the upper bound"
    )
    summary["attacks"]["classifier_holdout"] = _attack_metrics(0.7, 0.02, 0.75, is_membership=True)
    assert "Above the upper bound" in Page(render_report(summary, digits)).text


def test_only_a_release_is_called_releasable(summary: dict[str, Any], digits: LabeledDataset):
    releasable = Page(render_report(summary, digits)).text
    assert "may be released" in releasable
    assert "NOT FOR RELEASE" not in releasable
    unmarked = {name: value for name, value in summary.items() if name != "release"}
    seeded = summary | {"privacy": summary["privacy"] | {"noise_source": "seeded"}}
    for other in (summary | {"release": False}, unmarked, seeded):
        page = Page(render_report(other, digits))
        assert page.having("banner")
        assert "NOT FOR RELEASE" in page.text
        assert "may be released" not in page.text
    assert "drawn from a seed" in Page(render_report(seeded, digits)).text


def test_internal_metrics_are_marked(summary: dict[str, Any], digits: LabeledDataset):
    text = Page(render_report(summary, digits)).text
    for marked in ("internal page", "Utility internal", "Attacks internal", "accuracy loss internal"):
        assert marked in text


def test_what_comes_from_outside_is_escaped(summary: dict[str, Any], digits: LabeledDataset):
    harmless = Page(render_report(summary, digits))
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
    spec = DataSpec((8, 8, 1), 10, class_names=(hostile, "&amp;", *map(str, range(2, 10))))
    summary["dataset"] = summary["method"] = hostile
    summary["attacks"] = {
        hostile + name: metrics | {"description": hostile} for name, metrics in summary["attacks"].items()
    }
    summary["versions"] = {hostile: hostile}
    summary["seconds"] = {hostile: 1.0}
    summary["privacy"] |= dict.fromkeys(("unit", "sampling", "neighboring_relation", "statement"), hostile)
    summary["privacy"]["assumptions"] = (hostile,)
    summary["privacy"]["mechanisms"] = ({"name": hostile, "event": hostile, "epsilon": 1.0, "share": 1.0},)
    page = Page(render_report(summary, LabeledDataset(digits.images, digits.labels, spec)))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in harmless.tags}
    assert {name for _, attrs in page.tags for name in attrs} <= {name for _, attrs in harmless.tags for name in attrs}
    assert page.text.count(hostile) >= 14
    assert "&amp;" in page.text


def test_the_page_refers_to_nothing_outside_itself(summary: dict[str, Any], digits: LabeledDataset):
    source = render_report(summary, digits)
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in ("src", "href", "srcset", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    (style,) = re.findall(r"<style>(.*?)</style>", source, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in source


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_the_first_of_each_class_enlarged(channels: int, summary: dict[str, Any], digits: LabeledDataset):
    images = np.repeat(digits.images, channels, axis=3)
    images[..., 0] //= 2  # so that channels differ
    spec = DataSpec((8, 8, channels), 10)
    examples = [*np.flatnonzero(digits.labels == 4)[:3], *np.flatnonzero(digits.labels == 7)[:9]]
    synthetic = LabeledDataset(images, digits.labels, spec).take(examples)
    page = Page(render_report(summary, synthetic, samples_per_class=5))
    four, seven = (attributes for tag, attributes in page.tags if tag == "img")
    assert four["alt"] == "3 generated images of class 4"
    assert seven["alt"] == "5 generated images of class 7"
    assert page.text.count("no image of this class was generated") == 8
    strip = Image.open(io.BytesIO(base64.b64decode((four["src"] or "").removeprefix("data:image/png;base64,"))))
    pixels = np.asarray(strip)
    step = (pixels.shape[1] + 8) // 5
    for place in range(3):
        tile = pixels[:, place * step : (place + 1) * step - 8]
        assert tile.shape[:2] == (56, 56)
        assert np.all(tile[..., 3] == 255)
        expected = np.broadcast_to(synthetic.images[place], (8, 8, channels)).repeat(7, axis=0).repeat(7, axis=1)
        np.testing.assert_array_equal(tile[..., :3], np.broadcast_to(expected, tile[..., :3].shape))
    assert not pixels[:, 3 * step :, 3].any(), "room for two more, left transparent"


@pytest.mark.parametrize(("unit", "one", "other"), [("user", "user", "example"), ("example", "example", "user")])
def test_the_page_speaks_of_those_whom_the_promise_is_made_to(
    unit: str, one: str, other: str, summary: dict[str, Any], digits: LabeledDataset
) -> None:
    summary["privacy"]["unit"] = UNITS[unit]
    page = Page(render_report(summary, digits.take([])))
    for sentence in (
        f"private {one}s,",
        f"Take any one {one},",
        f"whether the {one} was there",
        f"this one {one} used",
    ):
        assert sentence in page.text
    for sentence in (f"private {other}s,", f"Take any one {other},"):
        assert sentence not in page.text


def test_missing_parts_are_said_to_be_missing(digits: LabeledDataset):
    page = Page(render_report({"privacy": {"epsilon": 1.0, "delta": 1e-6}}, digits.take([])))
    for sentence in (
        "Utility was not measured",
        "No attack was run",
        "The statement lists no mechanisms",
        "The statement names no assumptions",
        "The time that the steps took is not stated",
        "The versions of the software are not stated",
        "an unstated number of private examples",
        "not stated",
    ):
        assert sentence in page.text
    assert page.text.count("no image of this class was generated") == 10
    assert "None" not in page.text
    assert "ndefined" not in page.text


def test_an_attack_without_intervals_or_with_undefined_metrics_is_shown(
    summary: dict[str, Any], digits: LabeledDataset
):
    summary["attacks"] = {"bare": {"accuracy": 0.512, "auc": math.nan, "is_membership": True}}
    text = Page(render_report(summary, digits)).text
    assert "0.512" in text
    assert "no interval" in text
    assert "undefined" in text
    assert "not measured" in text


def test_an_unbounded_epsilon_is_shown(summary: dict[str, Any], digits: LabeledDataset):
    summary["privacy"] |= {"epsilon": math.inf, "epsilon_replace_one": math.inf}
    page = Page(render_report(summary, digits))
    assert "ε = unbounded" in page.text
    assert "upper bound 1.000" in page.text


def test_a_summary_without_a_promise_is_refused(summary: dict[str, Any], digits: LabeledDataset):
    del summary["privacy"]["delta"]
    with pytest.raises(ValueError, match=r"`summary` should hold privacy\.delta"):
        render_report(summary, digits)
    with pytest.raises(ValueError, match=r"privacy\.epsilon and privacy\.delta"):
        render_report({}, digits)
    with pytest.raises(ValueError, match="`samples_per_class` should be at least 1; got 0"):
        render_report(summary | {"privacy": {"epsilon": 1.0, "delta": 1e-6}}, digits, samples_per_class=0)


def test_write_report_replaces_whole_pages(summary: dict[str, Any], digits: LabeledDataset, tmp_path: pathlib.Path):
    path = tmp_path / "output" / "report.html"
    write_report(path, summary, digits)
    first = path.read_text(encoding="utf-8")
    assert first == render_report(summary, digits)
    with pytest.raises(ValueError, match="summary"):
        write_report(path, {}, digits)
    assert path.read_text(encoding="utf-8") == first
    write_report(path, summary | {"release": False}, digits)
    assert "NOT FOR RELEASE" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def _matrix(p1: float, p2: float, p3: float, p4: float) -> dict[str, Any]:
    accuracies = {"p1": p1, "p2": p2, "p3": p3, "p4": p4, "accuracy_loss": p1 - p2}
    intervals = {name: [value - 0.0213, value + 0.0117] for name, value in accuracies.items()}
    return {**accuracies, "intervals": intervals, "num_examples": [1077, 4321]}


@pytest.fixture
def full(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary that lacks nothing."""
    measures = {"fid": 12.34, "precision": 0.811, "recall": 0.722, "density": 0.933, "coverage": 0.844}
    generated = {**measures, "diversity": 1.055, "vendi_score": 6.66, "class_imbalance": 0.077}
    summary["utility"] = {
        **_matrix(0.9783, 0.8431, 0.9012, 0.9624),
        "label_agreement": 0.9012,
        "classifiers": {"random_forest": _matrix(0.9641, 0.8312, 0.7173, 0.9484)},
    }
    summary["fidelity"] = {
        "scattering": {
            "description": "Fixed wavelets.",
            "num_examples": 359,
            "generated": generated,
            "real": {name: 10 * value for name, value in generated.items()},
        }
    }
    rates = [0.0, 1e-3, 0.01, 0.1, 1.0]
    summary["attacks"]["classifier_holdout"] |= {
        "access": "samples",
        "paper": "Yeom et al. 2018",
        "tpr_at_1_percent_fpr": 0.0191,
        "tpr_at_1_percent_fpr_interval": [0.0081, 0.0371],
        "roc": {"fpr": rates, "tpr": rates, "low": rates, "high": rates},
    }
    summary["strongest_attack"] = {
        "name": "classifier_holdout",
        "privacy_loss": 0.0346,
        "interval": [-0.0571, 0.1262],
        "confidence": 0.975,
        "looked_at": 9,
        "correction": "Bonferroni over nine attacks",
    }
    summary["memorisation"] = {
        "description": "Distances to the nearest examples.",
        "near_copies_of_train": 0.00234,
        "share_without_memorisation": [0.481, 0.523],
    }
    summary["audit"] = {"claimed_epsilon": 2.97, "lower_bound": 1.234, "confidence": 0.95, "guesses": 417, "right": 251}
    summary["published_metrics"] = {
        "metrics": {"p2": {"value": 0.8391, "interval": [0.7812, 0.8876]}},
        "confidence": 0.95,
        "epsilon": 0.498,
        "delta": 1e-5,
        "statement": "p2 on 360 private test examples, with noise.",
    }
    total = {"epsilon": 8.5, "delta": 3e-6}
    summary["ledger"] = {
        "reservation": "5f2c",
        "accounts": [{"name": "scans", "unit": "user", "total": total, "num_examples": 9, "spent": 4.567, "runs": 13}],
    }
    return summary


def test_every_further_metric_appears(full: dict[str, Any], digits: LabeledDataset):
    page = Page(render_report(full, digits))
    forest = full["utility"]["classifiers"]["random_forest"]
    expected = [f"{forest[name]:.3f}" for name in ("p1", "p2", "p3", "p4", "accuracy_loss")]
    for matrix in (forest, full["utility"]):
        expected += [f"[{low:.3f}, {high:.3f}]" for low, high in matrix["intervals"].values()]
    for kind in ("generated", "real"):
        expected += [f"{value:.4g}" for value in full["fidelity"]["scattering"][kind].values()]
    expected += ["Fixed wavelets. 359 images of each kind", "at most 4,321 examples", "Label agreement = 0.901"]
    expected += ["0.019", "[0.008, 0.037]", "Sees: samples. Yeom et al. 2018.", "TPR at 0.1 % FPR"]
    expected += ["Highest of 9 membership attacks", "0.975: Bonferroni over nine attacks", "[-0.057, 0.126]"]
    expected += ["Distances to the nearest examples.", "0.00234", "[0.481, 0.523]"]
    expected += ["1.234", "guesses417", "right251"]
    expected += ["0.839", "[0.781, 0.888]", "p2 on 360 private test examples, with noise.", "Test examples: ε = 0.498"]
    assert [metric for metric in expected if metric not in page.text] == []
    assert len(page.having("chart")) == 2  # one ROC curve, and epsilon against steps
    assert "Above the claim" not in page.text
    assert "None" not in page.text


def test_published_accuracies_alone_may_be_released(full: dict[str, Any], digits: LabeledDataset):
    text = Page(render_report(full, digits)).text
    assert "Published accuracies may be released" in text
    assert "may not, but for the published accuracies" in text
    for marked in ("Fidelity internal", "Memorisation internal", "attack metrics, memorisation, auditsinternal"):
        assert marked in text
    withheld = Page(render_report(full | {"release": False}, digits)).text
    assert "Published accuracies not for release" in withheld
    assert "may be released" not in withheld
    del full["published_metrics"]
    without = Page(render_report(full, digits)).text
    assert "ublished accuracies" not in without
    assert "Test examples: ε" not in without


def test_an_audit_above_the_claim_is_called_out(full: dict[str, Any], digits: LabeledDataset):
    full["audit"]["lower_bound"] = 3.01
    assert "Above the claim" in Page(render_report(full, digits)).text


def test_what_was_not_measured_is_said_to_be_missing(summary: dict[str, Any], digits: LabeledDataset):
    text = Page(render_report(summary, digits)).text
    for sentence in (
        "Fidelity was not measured",
        "ROC curve: not measured",
        "No audit of ε: not measured",
        "The strongest attack, with an interval that allows for having looked at several: not measured",
        "Not measured.",
    ):
        assert sentence in text


def test_what_a_method_without_steps_has_none_of_is_not_said_to_be_missing(
    summary: dict[str, Any], digits: LabeledDataset
) -> None:
    nothing = dict.fromkeys(("expected_batch_size", "steps", "l2_norm_clip", "noise_multiplier"))
    summary["privacy"] |= nothing
    names = ("expected batch size", "steps", "bound on an example's gradient (L2)", "noise multiplier")
    for change, is_there in (
        ({}, True),
        ({"sampling": "none"}, False),
        ({"sampling": "poisson", "mechanisms": [{"name": "federated average"}]}, False),
    ):
        summary["privacy"] |= change
        page = render_report(summary, digits).replace("&#39;", "'")
        assert [f"<dt>{name}</dt>" in page for name in names] == [is_there] * 4


def test_events_have_numbers_that_people_can_read(summary: dict[str, Any], digits: LabeledDataset) -> None:
    event = "SelfComposedDpEvent(GaussianDpEvent(noise_multiplier=6.218923008819218), 1000, 1.0000123e-05, 0.5)"
    summary["privacy"]["mechanisms"] = [{"name": "means", "event": event, "epsilon": 1.0, "share": 1.0}]
    text = Page(render_report(summary, digits)).text
    assert "SelfComposedDpEvent(GaussianDpEvent(noise_multiplier=6.219), 1000, 1e-05, 0.5)" in text


def test_a_bound_that_rules_nothing_out_is_not_stated_as_one(summary: dict[str, Any], digits: LabeledDataset) -> None:
    assert "guesses right at most 95.1 %" in Page(render_report(summary, digits)).text
    summary["privacy"]["epsilon"] = 10.0
    text = render_report(summary, digits)
    assert "may then guess right nearly always" in text
    assert "guesses right at most" not in text


def test_further_parts_from_outside_are_escaped(full: dict[str, Any], digits: LabeledDataset):
    harmless = Page(render_report(full, digits))
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
    metrics = full["attacks"]["classifier_holdout"]
    full["attacks"][hostile] = metrics | dict.fromkeys(("access", "paper"), hostile)
    full["strongest_attack"] |= dict.fromkeys(("name", "correction"), hostile)
    full["memorisation"] |= {"description": hostile, hostile: hostile}
    full["audit"] |= {"description": hostile, "adversary": hostile}
    full["published_metrics"] |= {"statement": hostile, "metrics": {hostile: {"value": 0.5, "interval": [0, 1]}}}
    full["fidelity"][hostile] = full["fidelity"]["scattering"] | {"description": hostile}
    full["utility"]["classifiers"][hostile] = full["utility"]["classifiers"]["random_forest"]
    page = Page(render_report(full, digits))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in harmless.tags}
    assert {name for _, attrs in page.tags for name in attrs} == {name for _, attrs in harmless.tags for name in attrs}
    assert page.text.count("<script>") >= 13


def test_balanced_accuracies_stand_beside_accuracies(full: dict[str, Any], digits: LabeledDataset) -> None:
    full["utility"]["balanced"] = {"p1": 0.5011, "p2": 0.5022, "p3": 0.5033, "p4": 0.5044}
    full["utility"]["classifiers"]["random_forest"]["balanced"] = {"p1": 0.4011, "p2": 0.4022, "p3": 0.1, "p4": 0.2}
    assert "private test examples; balanced 0.502" in render_report(full, digits)
    text = Page(render_report(full, digits)).text
    for rate in ("0.501", "0.502", "0.503", "0.504", "0.401", "0.402"):
        assert f"balanced {rate}" in text


def test_what_was_not_measured_says_why_and_nothing_else_is_lost(full: dict[str, Any], digits: LabeledDataset) -> None:
    reason = "mlp cannot learn from 61 examples of 2 classes."
    full["utility"] |= dict.fromkeys(["p1", "accuracy_loss"])
    full["utility"]["intervals"] |= dict.fromkeys(["p1", "accuracy_loss"])
    full["utility"]["not_measured"] = {"p1": "There are no test examples.", "accuracy_loss": "none"}
    nothing = dict.fromkeys(("p1", "p2", "p3", "p4", "accuracy_loss"))
    full["utility"]["classifiers"]["mlp"] = {
        **nothing,
        "balanced": {},
        "intervals": nothing,
        "num_examples": [None, None],
        "not_measured": dict.fromkeys(("p1", "p3", "accuracy_loss"), reason),
    }
    full["fidelity"]["cnn"] = {"description": "A CNN.", "not_measured": "There should be at least 6 examples each."}
    text = Page(render_report(full, digits)).text
    assert f"Not measured: p1 mlp, p3 mlp. {reason}" in text
    assert "Not measured: p1. There are no test examples." in text
    assert "cnn: A CNN. Not measured: There should be at least 6 examples each." in text
    assert "0.843" in text  # p2 is there all the same
    assert "at most 4,321 examples" in text


def test_cautions_are_marked_internal(full: dict[str, Any], digits: LabeledDataset) -> None:
    assert "see the cautions" not in render_report(full, digits)
    full["utility"]["cautions"] = ["99.7% of the test split are of class <cat>."]
    glance = render_report(full, digits).partition('<dl class="facts glance">')[2].partition("</dl>")[0]
    assert "see the cautions under Utility" in glance
    assert "internal 99.7% of the test split are of class <cat>." in Page(render_report(full, digits)).text


def test_it_says_how_many_images_there_are_and_that_classes_are_balanced(
    full: dict[str, Any], digits: LabeledDataset
) -> None:
    text = Page(render_report(full | {"num_synthetic": 10_000_000}, digits)).text
    assert "10,000,000 synthetic images" in text
    assert "every class has as many plain synthetic images, whatever its share of the private ones" in text


def test_the_page_reads_the_matrix_and_compares_temperatures(full: dict[str, Any], digits: LabeledDataset) -> None:
    full["utility"]["over_seeds"] = {
        "num_seeds": 3,
        **{name: {"mean": 0.5, "least": 0.4321, "greatest": 0.6} for name in ("p1", "p2", "p3", "p4")},
    }
    without = Page(render_report(full, digits))
    assert "What the temperature does" not in without.text
    assert "A classifier of real images recognises" in without.text
    assert "The same with 3 seeds of the classifiers, mean and range: p1 0.500 (0.432 to 0.600)" in without.text
    images = {1.0: digits.images[:3], 0.5: digits.images[:3] // 2}
    page = render_report(full, digits, temperatures=images)
    assert "What the temperature does" in Page(page).text
    shown = [attrs for name, attrs in Page(page).tags if name == "img" and "temperature" in (attrs.get("alt") or "")]
    assert [attrs["alt"] for attrs in shown] == [f"generated images at temperature {each}" for each in ("0.5", "1")]
    for attrs in shown:
        picture = Image.open(io.BytesIO(base64.b64decode((attrs["src"] or "").partition(",")[2])))
        assert picture.size[0] > 3 * picture.size[1]


def test_it_says_where_classes_have_shares_of_their_own(full: dict[str, Any], digits: LabeledDataset) -> None:
    assert "noisy counts of the private labels" not in Page(render_report(full, digits)).text
    full["label_distribution"] = [0.1] * 10
    text = Page(render_report(full, digits)).text
    assert "noisy counts of the private labels" in text
    assert "every class has as many" not in text


def test_it_says_what_all_runs_have_come_to(full: dict[str, Any], digits: LabeledDataset) -> None:
    text = Page(render_report(full, digits)).text
    assert "All runs together internal. ε of the release is what this run costs." in text
    assert all(figure in text for figure in ("scanseach user", "4.567", "8.5", "3 · 10⁻⁶"))
    for without in (full | {"ledger": {"reservation": None, "accounts": []}}, full | {"ledger": None}):
        assert "All runs together" not in Page(render_report(without, digits)).text


def test_the_public_page_holds_nothing_of_private_examples(full: dict[str, Any], digits: LabeledDataset) -> None:
    """It is the same whatever was measured, and whatever the data set is called."""
    page = render_report(full, digits, public=True)
    other = copy.deepcopy(full) | {"dataset": "/home/me/diagnoses", "seconds": {"train": 99.0}}
    for name in INTERNAL:
        other.pop(name, None)
    assert render_report(other, digits, public=True) == page
    text = Page(page).text
    assert "may be handed out, with this page" in text
    assert f"{full['privacy']['epsilon']:.4g}" in text
    assert "internal" not in text.lower().replace("_internal", "")
    for heading in ("Fidelity", "Attacks", "Memorisation", "What may be handed out"):
        assert f"<h2>{heading}" not in page
    published = {"epsilon": 1.0, "delta": 1e-5, "statement": "Paid for.", "confidence": 0.95}
    published["metrics"] = {"p2": {"value": 0.777, "interval": [0.7, 0.8]}}
    assert "0.777" in render_report(full | {"published_metrics": published}, digits, public=True)
    assert set(public_part(full)) <= set(PUBLIC)
