"""Accounts follow examples, everything that happened to one is composed, and nobody pays more than their total."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sqlite3
import stat
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tfdpgen.data import DataSpec, LabeledDataset, RecordDataset
from tfdpgen.data import dataset as dataset_module
from tfdpgen.privacy import (
    BudgetExceededError,
    Identity,
    Ledger,
    LedgerError,
    NoisyCounts,
    PrivacyBudget,
    TamperedError,
    dataset_id,
    epsilon_of,
)
from tfdpgen.privacy.accounting import ReplaceOneDpEvent, group_event, poisson_gaussian_event
from tfdpgen.privacy.accounts import book
from tfdpgen.privacy.accounts.tables import METADATA
from tfdpgen.privacy.ledger import TOTAL_EPSILON

_EVENT = NoisyCounts().with_noise(8.0).event
_DELTA = 1e-5
_ONCE = epsilon_of(_EVENT, _DELTA)
_SPEC = DataSpec((4, 4, 1), 3)


def _examples(count: int, seed: int = 0, users: Any = None, spec: DataSpec = _SPEC) -> LabeledDataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(count, *spec.image_shape), dtype=np.uint8)
    return LabeledDataset(images, rng.integers(spec.num_classes, size=count), spec, users)


def _times(count: int) -> float:
    return epsilon_of(dp_accounting.SelfComposedDpEvent(_EVENT, int(count)), _DELTA)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "new" / "ledger.sqlite", account="scans")


def test_reservations_compose_and_outlive_the_ledger_object(tmp_path: Path) -> None:
    path, data = tmp_path / "new" / "ledger.sqlite", _examples(20)
    assert Ledger(path).spent(data, _DELTA) == 0.0
    Ledger(path).reserve(data, _EVENT, delta=_DELTA)
    assert Ledger(path).spent(data, _DELTA) == pytest.approx(_ONCE)
    Ledger(path).reserve(data, _EVENT, delta=_DELTA)
    assert len(Ledger(path).reservations(data)) == 2
    assert Ledger(path).spent(data, _DELTA) == pytest.approx(_times(2), rel=1e-4)
    assert _times(2) < 1.6 * _ONCE  # composed, not added
    assert Ledger(path).spent(_examples(20, 1), _DELTA) == 0.0


def test_a_ledger_is_its_owners_alone(ledger: Ledger) -> None:
    path = Path(ledger.address)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    Ledger(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_key_is_its_owner_s_also_behind_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    Ledger(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o600


def _variants(data: LabeledDataset) -> dict[str, LabeledDataset]:
    backwards = np.arange(len(data))[::-1]
    more = DataSpec(data.spec.image_shape, data.spec.num_classes + 1, (0.0, 1.0), ("a", "b", "c", "d"))
    return {
        "as it is": data,
        "reversed": data.take(backwards),
        "without the first": data.take(np.arange(1, len(data))),
        "without the last": data.take(np.arange(len(data) - 1)),
        "a single one": data.take([7]),
        "one class more, with names": LabeledDataset(data.images, data.labels, more),
        "labelled anew": LabeledDataset(data.images, (data.labels + 1) % 3, data.spec),
        "one user": LabeledDataset(data.images, data.labels, data.spec, np.zeros(len(data), np.int64)),
        "among others": LabeledDataset(
            np.concatenate([_examples(9, 5).images, data.images]),
            np.concatenate([_examples(9, 5).labels, data.labels]),
            data.spec,
        ),
        "twice": data.take([*range(len(data)), *range(len(data))]),
    }


@pytest.mark.parametrize("variant", list(_variants(_examples(30))))
def test_no_other_form_of_the_examples_has_a_fresh_account(ledger: Ledger, variant: str) -> None:
    data = _examples(30)
    ledger.open(data, PrivacyBudget(1.3 * _ONCE, _DELTA), name="owner's")
    ledger.reserve(data, _EVENT, delta=_DELTA)
    other = _variants(data)[variant]
    assert ledger.spent(other, _DELTA) == pytest.approx(_ONCE)
    before = ledger.verify()
    with pytest.raises(BudgetExceededError, match="Nothing was reserved and nothing was run") as refused:
        ledger.reserve(other, _EVENT, delta=_DELTA)
    assert f"asks for epsilon={_ONCE:.4g}" in str(refused.value)
    assert f"has paid {_ONCE:.4g}, in 1 run, and would come to {_times(2):.4g}" in str(refused.value)
    assert ledger.verify() == before
    fits = float(str(refused.value).partition("A run of epsilon=")[2].split()[0])
    assert 0.4 * _ONCE < fits < _ONCE
    noise = dp_accounting.get_sigma_gaussian(fits, _DELTA)
    ledger.reserve(other, dp_accounting.GaussianDpEvent(noise), delta=_DELTA)
    assert ledger.spent(data, _DELTA) <= 1.3 * _ONCE


def test_the_records_on_disk_are_the_same_examples(ledger: Ledger) -> None:
    data = _examples(30)
    ledger.reserve(data, _EVENT, delta=_DELTA)
    records = [{"image": image, "label": label} for image, label in zip(data.images, data.labels, strict=True)]
    assert ledger.spent(RecordDataset(records, _SPEC), _DELTA) == pytest.approx(_ONCE)


def test_what_happens_to_a_part_is_charged_to_that_part(ledger: Ledger) -> None:
    data = _examples(40)
    ledger.reserve(data.take(range(30)), _EVENT, delta=_DELTA)
    ledger.reserve(data.take(range(10, 40)), _EVENT, delta=_DELTA)
    ledger.reserve(data.take(range(20, 25)), _EVENT, delta=_DELTA)
    expected = np.ones(40, int)
    expected[10:30] += 1
    expected[20:25] += 1
    for place in (0, 9, 10, 19, 20, 24, 25, 30, 39):
        assert ledger.spent(data.take([place]), _DELTA) == pytest.approx(_times(expected[place]), rel=1e-4), place
    assert ledger.spent(data, _DELTA) == pytest.approx(_times(3), rel=1e-4)
    assert [len(ledger.reservations(data.take([place]))) for place in (0, 10, 22, 39)] == [1, 2, 3, 1]
    (account,) = ledger.standings()
    assert (account.name, account.num_examples, account.runs) == ("scans", 40, 3)
    assert account.spent == pytest.approx(_times(3), rel=1e-4)
    assert ledger.verify() == ledger.history()[-1].digest


def test_many_random_parts_are_charged_as_a_count_of_each_example_says(ledger: Ledger) -> None:
    rng, data = np.random.default_rng(0), _examples(60)
    counts = np.zeros(60, int)
    for _ in range(12):
        part = rng.permutation(60)[: rng.integers(1, 60)]
        ledger.reserve(data.take(part), _EVENT, delta=_DELTA, limit=PrivacyBudget(100, _DELTA))
        counts[part] += 1
    for place in range(0, 60, 3):
        assert len(ledger.reservations(data.take([place]))) == counts[place]
    assert ledger.spent(data, _DELTA) == pytest.approx(_times(counts.max()), rel=1e-4)
    ledger.verify()


def test_a_first_run_opens_an_account_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    ledger = Ledger(tmp_path / "l", account="scans", total_epsilon=2.5 * _ONCE, say=said.append)
    data = _examples(30)
    ledger.reserve(data.take(range(20)), _EVENT, delta=_DELTA, purpose="train c_vae")
    assert said[0].startswith("Ledger: these examples are new to ")
    assert "'scans' was opened for 20 of them, in which every example may cost epsilon" in said[0]
    assert f"reserved epsilon {_ONCE:.3g} for train c_vae, which counts as spent from now on" in said[1]
    ledger.reserve(data, _EVENT, delta=_DELTA)
    assert "10 examples are new, and were added to the account 'scans'" in said[2]
    for _ in range(10):
        with contextlib.suppress(BudgetExceededError):
            ledger.reserve(data, _EVENT, delta=_DELTA)
    assert ledger.spent(data, _DELTA) == pytest.approx(_times(5), rel=1e-4)
    assert _times(5) < 2.5 * _ONCE < _times(6)
    (account,) = ledger.standings()
    assert account.total == PrivacyBudget(2.5 * _ONCE, _DELTA)


def test_copies_of_an_image_are_examples_and_that_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    ledger, data = Ledger(tmp_path / "l", say=said.append), _examples(6)
    ledger.reserve(data.take([0, 1, 1, 2, 1]), _EVENT, delta=_DELTA)
    assert said[0].startswith("Ledger: AN IMAGE IS THERE 3 TIMES. The promise is to each copy by itself.")
    assert ledger.rehearse(data.take([1, 1]), _EVENT, delta=_DELTA)[0].startswith("Ledger: AN IMAGE IS THERE 2 TIMES.")
    assert not any("TIMES" in line for line in ledger.rehearse(data, _EVENT, delta=_DELTA))
    assert [entry.num_examples for entry in ledger.reservations()] == [5]
    assert [account.num_examples for account in ledger.standings()] == [3]
    ledger.verify()


def test_a_run_that_costs_the_whole_total_to_the_last_digit_fits(tmp_path: Path) -> None:
    event = dp_accounting.ComposedDpEvent([_EVENT, poisson_gaussian_event(0.1, 1.1, 50), _EVENT])
    cost = epsilon_of(event, _DELTA)
    ledger = Ledger(tmp_path / "l", total_epsilon=cost)
    ledger.reserve(_examples(5), event, delta=_DELTA)
    assert ledger.spent(_examples(5), _DELTA) == cost


def test_the_default_total_is_documented_and_holds(tmp_path: Path) -> None:
    ledger, data = Ledger(tmp_path / "l"), _examples(5)
    strong = dp_accounting.GaussianDpEvent(dp_accounting.get_sigma_gaussian(0.9 * TOTAL_EPSILON, _DELTA))
    ledger.reserve(data, strong, delta=_DELTA)
    with pytest.raises(BudgetExceededError, match="may cost 10 at delta=1e-05 in total"):
        ledger.reserve(data, strong, delta=_DELTA)
    other = _examples(5, 1)
    with pytest.raises(BudgetExceededError, match="--total_epsilon"):
        ledger.reserve(other, dp_accounting.GaussianDpEvent(0.1), delta=_DELTA)
    assert ledger.spent(other, _DELTA) == 0.0
    assert len(ledger.standings()) == 1  # what was refused has opened nothing


def test_new_examples_among_known_ones_join_their_account(tmp_path: Path) -> None:
    ledger, data = Ledger(tmp_path / "l"), _examples(30)
    ledger.open(data.take(range(20)), PrivacyBudget(1, _DELTA), name="clinic")
    ledger.reserve(data, _EVENT, delta=_DELTA)
    (account,) = ledger.standings()
    assert (account.name, account.num_examples) == ("clinic", 30)


def test_an_example_in_two_accounts_is_held_to_both(ledger: Ledger) -> None:
    data = _examples(30)
    ledger.open(data.take(range(20)), PrivacyBudget(1.2 * _ONCE, _DELTA), name="strict")
    ledger.open(data.take(range(10, 30)), PrivacyBudget(5 * _ONCE, _DELTA), name="loose")
    ledger.reserve(data.take(range(15, 30)), _EVENT, delta=_DELTA)
    ledger.reserve(data.take(range(20, 30)), _EVENT, delta=_DELTA)
    for part in ([12, 17], [17], range(30)):
        with pytest.raises(BudgetExceededError, match="account 'strict'"):
            ledger.reserve(data.take(part), _EVENT, delta=_DELTA)
    ledger.reserve(data.take(range(15)), _EVENT, delta=_DELTA)


def test_a_limit_that_a_caller_gives_holds_besides(ledger: Ledger) -> None:
    data = _examples(10)
    limit = PrivacyBudget(1.3 * _ONCE, _DELTA)
    ledger.reserve(data, _EVENT, delta=_DELTA)
    with pytest.raises(BudgetExceededError, match="of these examples, in which every example may cost"):
        ledger.reserve(data, _EVENT, delta=_DELTA, limit=limit)
    assert len(ledger.reservations(data)) == 1
    ledger.reserve(data, _EVENT, delta=_DELTA)


def test_an_owner_can_give_another_total_with_a_reason(ledger: Ledger) -> None:
    data = _examples(10)
    ledger.open(data, PrivacyBudget(1.1 * _ONCE, _DELTA), name="scans")
    with pytest.raises(ValueError, match="already"):
        ledger.open(data, PrivacyBudget(9, _DELTA), name="scans")
    ledger.reserve(data, _EVENT, delta=_DELTA)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(data, _EVENT, delta=_DELTA)
    ledger.limit("scans", PrivacyBudget(1.6 * _ONCE, _DELTA), reason="the ethics board agreed")
    ledger.reserve(data, _EVENT, delta=_DELTA)
    assert [entry.kind for entry in ledger.history()][1:] == ["opened", "added", "reserved", "limited", "reserved"]
    assert ledger.history()[4].body["reason"] == "the ethics board agreed"
    with pytest.raises(ValueError, match=r"There is no account 'scan'; there are 'scans'. Did you mean 'scans'\?"):
        ledger.limit("scan", PrivacyBudget(1, _DELTA), reason="a slip")


def test_an_owner_says_why_and_keeps_delta_small(ledger: Ledger) -> None:
    data = _examples(10, users=np.arange(10) // 5)
    with pytest.raises(ValueError, match=r"smaller than 1 / num_examples = 0\.1"):
        ledger.open(data, PrivacyBudget(3, 0.1), name="scans")
    with pytest.raises(ValueError, match=r"smaller than 1 / num_users = 0\.5"):
        ledger.open(data, PrivacyBudget(3, 0.5), name="people", unit="user")
    ledger.open(data, PrivacyBudget(3, 0.4), name="people", unit="user")
    ledger.open(data, PrivacyBudget(3, _DELTA), name="scans")
    with pytest.raises(ValueError, match=r"smaller than 1 / num_examples = 0\.1"):
        ledger.limit("scans", PrivacyBudget(3, 0.2), reason="a slip")
    name = ledger.reserve(data.take([0]), _EVENT, delta=_DELTA)
    for change in (
        lambda: ledger.limit("scans", PrivacyBudget(4, _DELTA), reason=" "),
        lambda: ledger.join(["scans", "people"], reason=""),
        lambda: ledger.void(name, reason=""),
    ):
        with pytest.raises(ValueError, match="`reason` should say why"):
            change()
    assert [account.total.epsilon for account in ledger.standings()] == [3, 3]


def test_data_sets_that_belong_together_are_charged_together(ledger: Ledger) -> None:
    """Copies that digests cannot see, say of another size."""
    data, smaller = _examples(10), _examples(10, 3, spec=DataSpec((2, 2, 1), 3))
    ledger.open(data, PrivacyBudget(1.3 * _ONCE, _DELTA), name="large")
    ledger.open(smaller, PrivacyBudget(9, _DELTA), name="small")
    ledger.reserve(smaller, _EVENT, delta=_DELTA)
    assert ledger.spent(data, _DELTA) == 0
    ledger.join(["large", "small"], reason="the same patients")
    assert [account.joined for account in ledger.standings()] == [("small",), ("large",)]
    assert [account.name for account in ledger.standings(smaller)] == ["large", "small"]
    assert ledger.fitting("small") == ledger.fitting("large") < 1.3 * _ONCE
    for part in (data.take([0]), smaller):  # each is held to the totals of both
        with pytest.raises(BudgetExceededError, match="account 'large'"):
            ledger.reserve(part, _EVENT, delta=_DELTA)
    ledger.limit("large", PrivacyBudget(9, _DELTA), reason="after all")
    ledger.reserve(smaller, _EVENT, delta=_DELTA)
    assert [account.spent for account in ledger.standings()] == pytest.approx([_times(2)] * 2, rel=1e-4)
    ledger.verify()


def test_joined_accounts_reach_whatever_else_their_examples_are_in(ledger: Ledger) -> None:
    one, other = _examples(10), _examples(10, 3, spec=DataSpec((2, 2, 1), 3))
    ledger.open(one, PrivacyBudget(20, _DELTA), name="large")
    ledger.open(other, PrivacyBudget(20, _DELTA), name="small")
    ledger.open(one.take([4]), PrivacyBudget(1.3 * _ONCE, _DELTA), name="a part")
    ledger.join(["large", "small"], reason="the same patients")
    ledger.reserve(other.take([0]), _EVENT, delta=_DELTA)
    assert [account.spent for account in ledger.standings()] == pytest.approx([_ONCE] * 3)
    assert ledger.spent(one.take([7]), _DELTA) == pytest.approx(_ONCE)
    for part in (one.take([0]), one.take([4]), other):
        with pytest.raises(BudgetExceededError, match="account 'a part'"):
            ledger.reserve(part, _EVENT, delta=_DELTA)
    ledger.limit("a part", PrivacyBudget(20, _DELTA), reason="after all")
    with pytest.raises(BudgetExceededError, match="these examples"):
        ledger.reserve(one.take([0]), _EVENT, delta=_DELTA, limit=PrivacyBudget(1.3 * _ONCE, _DELTA))


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 100))])
def test_random_accounts_and_runs_are_as_another_model_says(tmp_path: Path, seed: int) -> None:
    """The model has images, and sets of them that are charged together: no cohorts, no ranking, no composition."""
    rng, ledger, data = np.random.default_rng(seed), Ledger(tmp_path / "l"), _examples(12)
    accounts: dict[str, tuple[set[int], float, set[str]]] = {}
    paid: list[tuple[set[int], float, str]] = []

    def reached(images: set[int]) -> set[int]:
        while True:
            more = set(images)
            for members, _, joined in accounts.values():
                if len(joined) > 1 and members & images:
                    more |= set.union(*(accounts[name][0] for name in joined))
            if more == images:
                return more
            images = more

    def spent(image: int, more: float = 0.0) -> float:
        precision = more + sum(p for images, p, name in paid if images & reached({image}))
        return dp_accounting.get_epsilon_gaussian(precision**-0.5, _DELTA) if precision else 0.0

    for _ in range(30):
        part = {int(image) for image in rng.choice(12, rng.integers(1, 7), replace=False)}
        kind = rng.choice(["open", "join", "reserve", "reserve", "reserve", "void"])
        if kind == "open" or not accounts:
            name, total = f"account {len(accounts)}", float(rng.uniform(1, 3))
            ledger.open(data.take(sorted(part)), PrivacyBudget(total, _DELTA), name=name)
            accounts[name] = (part, total, {name})
        elif kind == "join" and len(accounts) > 1:
            names = [str(name) for name in rng.choice(list(accounts), 2, replace=False)]
            ledger.join(names, reason="a test")
            together = accounts[names[0]][2] | accounts[names[1]][2]
            for name in together:
                accounts[name] = (*accounts[name][:2], together)
        elif kind == "reserve" and (known := part & set.union(*(members for members, _, _ in accounts.values()))):
            noise = float(rng.uniform(5, 12))
            hit = reached(known)
            ratios = [
                spent(image, noise**-2) / total for members, total, _ in accounts.values() for image in members & hit
            ]
            if abs(max(ratios) - 1) < 1e-3:
                continue
            event = NoisyCounts().with_noise(noise).event
            if max(ratios) > 1:
                with pytest.raises(BudgetExceededError):
                    ledger.reserve(data.take(sorted(known)), event, delta=_DELTA)
            else:
                paid.append((known, noise**-2, ledger.reserve(data.take(sorted(known)), event, delta=_DELTA)))
        elif kind == "void" and paid:
            ledger.void(paid.pop(int(rng.integers(len(paid))))[2], reason="a test")
        for account in ledger.standings():
            worst = max(spent(image) for image in accounts[account.name][0])
            assert account.spent == pytest.approx(worst, rel=1e-3, abs=1e-9)
    assert paid
    ledger.verify()


def test_many_histories_are_looked_at_in_the_order_of_what_they_may_cost(ledger: Ledger) -> None:
    """Random parts make as many histories as there are examples, and few of them can be the worst."""
    data, rng = _examples(300), np.random.default_rng(0)
    counts = np.zeros(300)
    for number in range(12):
        part = np.flatnonzero(rng.integers(2, size=300))
        ledger.reserve(data.take(part), poisson_gaussian_event(0.1, 2.0 + number / 100, 20), delta=_DELTA)
        counts[part] += 1
    composed: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        counted = book.Past.epsilon
        patch.setattr(book.Past, "epsilon", lambda past, delta: composed.append(delta) or counted(past, delta))
        spent = ledger.spent(data, _DELTA)
    events = [entry.event for entry in ledger.reservations(data.take([int(counts.argmax())]))]
    assert len(events) == counts.max() >= 10
    assert spent >= epsilon_of(dp_accounting.ComposedDpEvent(events), _DELTA) * (1 - 1e-4)
    assert len(composed) < 60


@pytest.mark.parametrize(
    "event",
    [_EVENT, poisson_gaussian_event(0.01, 0.8, 500), dp_accounting.LaplaceDpEvent(2.0), ReplaceOneDpEvent(_EVENT)],
)
def test_no_past_costs_more_than_what_ranks_it(event: Any) -> None:
    past = book.Past.together([book.Past.of(each) for each in (event, _EVENT, event)])
    for delta in (1e-4, 1e-7):
        assert past.epsilon(delta) <= past.bound(delta) * (1 + 1e-3)
        assert math.isfinite(past.bound(delta)) is not isinstance(event, ReplaceOneDpEvent)
        if math.isfinite(past.bound(delta)):
            accountant = dp_accounting.rdp.RdpAccountant(book._ORDERS)
            accountant.compose(dp_accounting.ComposedDpEvent([event, _EVENT, event]))
            assert past.bound(delta) == pytest.approx(accountant.get_epsilon(delta), rel=1e-6)


def test_what_fits_is_what_every_account_of_the_examples_can_pay(ledger: Ledger) -> None:
    data = _examples(20)
    ledger.open(data, PrivacyBudget(5, _DELTA), name="loose")
    assert ledger.fitting("loose") == 5  # all of it, where nothing was spent
    ledger.open(data.take(range(5)), PrivacyBudget(2, _DELTA), name="strict")
    assert ledger.fitting("loose") == ledger.fitting("strict") == 2
    ledger.reserve(data.take(range(5, 20)), _EVENT, delta=_DELTA)  # of none in the strict one
    assert ledger.fitting("loose") == 2
    assert [account.runs for account in ledger.standings()] == [1, 0]


def test_a_rehearsal_says_what_reserving_would_and_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", account="scans", total_epsilon=1.3 * _ONCE)
    data, before = _examples(10), (tmp_path / "l").read_bytes()
    opened, fits = ledger.rehearse(data, _EVENT, delta=_DELTA)
    assert "The account 'scans' would be opened for 10 of them" in opened
    assert f"it has come to 0 in 0 runs, and with this one of {_ONCE:.3g} would come to {_ONCE:.3g}" in fits
    assert (tmp_path / "l").read_bytes() == before
    ledger.reserve(data, _EVENT, delta=_DELTA)
    with pytest.raises(BudgetExceededError, match="would fit"):
        ledger.rehearse(data, _EVENT, delta=_DELTA)
    other = Ledger(tmp_path / "l", account="photographs")
    opened, warning, fits = other.rehearse(_examples(10, 3), _EVENT, delta=_DELTA)
    assert "IF THESE ARE IMAGES OF 'scans', the ledger does not see it" in warning
    more, _ = ledger.rehearse(_examples(13), NoisyCounts().with_noise(80.0).event, delta=_DELTA)
    assert "3 examples are new, and would be added to the account 'scans'" in more
    assert len(ledger.reservations()) == 1
    assert [account.num_examples for account in ledger.standings()] == [10]


def test_a_note_says_whose_run_it_was(tmp_path: Path) -> None:
    said: list[str] = []
    ledger = Ledger(tmp_path / "l", say=said.append, note=" (run 7, me)")
    ledger.reserve(_examples(3), _EVENT, delta=_DELTA, purpose="train c_vae")
    assert ledger.reservations()[0].purpose == "train c_vae (run 7, me)"
    assert "run 7" not in said[1]


def test_what_is_confirmed_or_crashed_counts_and_what_an_owner_voids_does_not(ledger: Ledger) -> None:
    data = _examples(10)
    one, two = (ledger.reserve(data, _EVENT, delta=_DELTA) for _ in range(2))
    ledger.confirm(one)
    ledger.confirm(one)
    assert [entry.state for entry in ledger.reservations(data)] == ["confirmed", "reserved"]
    assert ledger.spent(data, _DELTA) == pytest.approx(_times(2), rel=1e-4)
    with pytest.raises(ValueError, match="has finished, and cannot be made void"):
        ledger.void(one, reason="a mistake")
    ledger.void(two, reason="the machine burnt down before it began")
    assert ledger.spent(data, _DELTA) == pytest.approx(_ONCE)
    assert ledger.has(one, data, _EVENT)
    assert not ledger.has(two, data, _EVENT)
    assert not ledger.has(one, data.take(range(9)), _EVENT)
    assert not ledger.has(one, data, NoisyCounts().with_noise(9.0).event)
    with pytest.raises(ValueError, match="is not in the ledger"):
        ledger.confirm("f" * 32)
    ledger.verify()


# Users


def test_an_example_of_a_user_pays_for_its_user_being_another(ledger: Ledger) -> None:
    data = _examples(12, users=np.arange(12) // 3)
    ledger.open(data, PrivacyBudget(50, _DELTA), name="of examples")
    event = poisson_gaussian_event(0.2, 1.5, 10)
    ledger.reserve(data, event, delta=_DELTA, unit="user")
    assert ledger.spent(data, _DELTA) == pytest.approx(epsilon_of(ReplaceOneDpEvent(event), _DELTA))
    assert ledger.spent(data, _DELTA, "user") == pytest.approx(epsilon_of(event, _DELTA))


@pytest.mark.parametrize("event", [_EVENT, poisson_gaussian_event(0.1, 2.0, 20)])
def test_a_user_pays_for_all_of_their_examples_together(ledger: Ledger, event: Any) -> None:
    users = np.array([0] * 4 + [1] * 2 + [2])
    data = _examples(7, users=users)
    ledger.open(data, PrivacyBudget(100, _DELTA), name="of users", unit="user")
    ledger.reserve(data, event, delta=_DELTA)
    for places in ([0, 1, 2, 3], [2], [4, 5], [6]):  # who is who is not known to the ledger, but how many one has
        spent = ledger.spent(data.take(places), _DELTA, "user")
        assert spent == pytest.approx(epsilon_of(group_event(event, 4), _DELTA)), places
    ledger.verify()


def test_neither_runs_without_users_nor_made_up_users_make_it_cheaper_for_users(ledger: Ledger) -> None:
    data = _examples(12, users=np.arange(12) // 4)
    unknown = LabeledDataset(data.images, data.labels, data.spec)
    alone = LabeledDataset(data.images, data.labels, data.spec, np.arange(12))
    ledger.reserve(unknown, _EVENT, delta=_DELTA)  # before there is an account of users
    ledger.open(data, PrivacyBudget(100, _DELTA), name="of users", unit="user")
    group = group_event(_EVENT, 4)
    assert next(account.spent for account in ledger.standings() if account.name == "of users") == pytest.approx(
        epsilon_of(group, _DELTA)
    )
    for number, other in enumerate((unknown, alone), 2):
        ledger.reserve(other, _EVENT, delta=_DELTA)
        spent = epsilon_of(dp_accounting.SelfComposedDpEvent(group, number), _DELTA)
        assert ledger.standings()[-1].spent == pytest.approx(spent, rel=1e-3)
    ledger.add("of users", _examples(9, 5, users=np.arange(9) // 3))  # they may be the same users
    assert ledger.standings()[-1].spent == pytest.approx(
        epsilon_of(dp_accounting.SelfComposedDpEvent(group_event(_EVENT, 7), 3), _DELTA), rel=1e-3
    )
    ledger.verify()


def _unknown(data: LabeledDataset) -> LabeledDataset:
    return LabeledDataset(data.images, data.labels, data.spec)


def test_a_run_that_does_not_say_whose_its_images_are_brings_no_others_into_an_account_of_users(ledger: Ledger) -> None:
    data = _examples(10, users=np.arange(10))
    ledger.open(data, PrivacyBudget(3, _DELTA), name="scans", unit="user")
    ledger.open(_examples(5, 2), PrivacyBudget(3, _DELTA), name="others")
    for strangers in (_examples(20, 1), _examples(5, 2)):  # new ones, and those of another account
        mixed = LabeledDataset(
            np.concatenate([data.images, strangers.images]), np.zeros(10 + len(strangers), np.int64), data.spec
        )
        with pytest.raises(ValueError, match="or some that are not in it, do not say whose they are"):
            ledger.reserve(mixed, _EVENT, delta=_DELTA)
    with pytest.raises(ValueError, match="do not say whose they are"):
        ledger.reserve(_examples(20, 1), _EVENT, delta=_DELTA)  # all new, for the account of that name
    with pytest.raises(ValueError, match="do not say whose they are"):
        ledger.add("scans", _examples(20, 1))
    assert not ledger.reservations()
    ledger.reserve(_unknown(data), _EVENT, delta=_DELTA)
    assert [account.spent for account in ledger.standings()] == pytest.approx([_ONCE, 0])


def test_copies_and_further_accounts_of_the_same_users_are_more_images_of_them(ledger: Ledger) -> None:
    data, other = _examples(6, users=np.arange(6)), _examples(6, 3, users=np.arange(6))
    ledger.open(data, PrivacyBudget(100, _DELTA), name="one", unit="user")
    ledger.open(other, PrivacyBudget(100, _DELTA), name="two", unit="user")
    copies = _unknown(data.take([0, 1, 2, 3, 4, 5] * 5))
    ledger.reserve(copies, _EVENT, delta=_DELTA)
    five = group_event(_EVENT, 5)
    assert [account.spent for account in ledger.standings()] == pytest.approx([epsilon_of(five, _DELTA), 0])
    ledger.join(["one", "two"], reason="the same people")
    both = LabeledDataset(np.concatenate([data.images, other.images]), np.zeros(12, np.int64), data.spec)
    ledger.reserve(both, _EVENT, delta=_DELTA)
    spent = epsilon_of(dp_accounting.ComposedDpEvent([five, group_event(_EVENT, 2)]), _DELTA)
    assert [account.spent for account in ledger.standings()] == pytest.approx([spent] * 2, rel=1e-3)


def test_what_a_run_has_said_of_its_users_is_not_forgotten(ledger: Ledger) -> None:
    ledger.open(_examples(4, users=np.arange(4)), PrivacyBudget(100, _DELTA), name="scans", unit="user")
    ledger.reserve(_examples(4, users=np.array([0, 0, 0, 1])), _EVENT, delta=_DELTA)
    spent = epsilon_of(group_event(_EVENT, 3), _DELTA)
    assert ledger.standings()[0].spent == pytest.approx(spent)
    assert ledger.spent(_examples(4, users=np.arange(4)), _DELTA, "user") == pytest.approx(spent)
    ledger.verify()


def test_half_known_users_are_not_counted_twice(ledger: Ledger) -> None:
    data = _examples(10, users=np.arange(10))
    ledger.reserve(_unknown(data).take([1]), _EVENT, delta=_DELTA)
    ledger.open(data.take([1, 9]), PrivacyBudget(3, _DELTA), name="people", unit="user")
    assert ledger.standings()[-1].spent == pytest.approx(_ONCE)


def test_accounts_whose_users_would_have_paid_what_nobody_knows_are_not_joined(ledger: Ledger) -> None:
    ledger.open(_examples(4, users=np.arange(4)), PrivacyBudget(9, _DELTA), name="one", unit="user")
    ledger.open(_examples(4, 3, users=np.array([0, 0, 1, 1])), PrivacyBudget(9, _DELTA), name="two", unit="user")
    ledger.reserve(_examples(4, users=np.arange(4)), ReplaceOneDpEvent(_EVENT), delta=_DELTA)
    ledger.join(["one", "two"], reason="the same people")  # they have paid in images of one account
    assert len({account.spent for account in ledger.standings()}) == 1
    with pytest.raises(ValueError, match="costs a user of 2 examples is not known"):
        ledger.reserve(_examples(4, 3, users=np.array([0, 0, 1, 1])), ReplaceOneDpEvent(_EVENT), delta=_DELTA)
    one_person = _examples(2, users=np.zeros(2, int))
    for change in (
        lambda: ledger.open(one_person, PrivacyBudget(9, 0.3), name="a part", unit="user"),
        lambda: ledger.add("two", one_person),
    ):
        with pytest.raises(ValueError, match="would have paid is not known: a run on these examples, such as"):
            change()
    assert [account.name for account in ledger.standings()] == ["one", "two"]


def test_nothing_happens_to_no_example(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="should hold examples"):
        ledger.reserve(_examples(3).take([]), _EVENT, delta=_DELTA)


def test_the_account_of_users_refuses_what_it_cannot_charge_them(ledger: Ledger) -> None:
    data = _examples(12, users=np.arange(12) // 3)
    group = epsilon_of(group_event(_EVENT, 3), _DELTA)
    ledger.open(data, PrivacyBudget(1.1 * group, _DELTA), name="of users", unit="user")
    unknown = LabeledDataset(data.images, data.labels, data.spec)
    ledger.open("elsewhere", PrivacyBudget(1, _DELTA), name="elsewhere", unit="user")
    with pytest.raises(ValueError, match="do not say whose they are"):
        ledger.reserve("elsewhere", _EVENT, delta=_DELTA)
    with pytest.raises(ValueError, match="costs a user of 3 examples is not known"):
        ledger.reserve(data, ReplaceOneDpEvent(_EVENT), delta=_DELTA)
    assert not ledger.reservations()
    ledger.reserve(data, _EVENT, delta=_DELTA)
    with pytest.raises(BudgetExceededError, match="every user may cost"):
        ledger.reserve(data, NoisyCounts().with_noise(4.0).event, delta=_DELTA, unit="user")
    with pytest.raises(ValueError, match="does not say whose"):
        ledger.open(unknown, PrivacyBudget(1, _DELTA), name="others", unit="user")


def test_a_user_has_paid_for_whatever_any_of_their_examples_was_in(ledger: Ledger) -> None:
    data = _examples(4, users=np.array([0, 0, 1, 1]))
    ledger.open(data, PrivacyBudget(100, _DELTA), name="of users", unit="user")
    ledger.reserve(data.take([0, 2]), _EVENT, delta=_DELTA, unit="user")
    ledger.reserve(data.take([1]), _EVENT, delta=_DELTA, unit="user")
    assert ledger.spent(data.take([0, 1]), _DELTA, "user") == pytest.approx(_times(2), rel=1e-4)
    assert ledger.spent(data.take([2, 3]), _DELTA, "user") == pytest.approx(
        _times(2), rel=1e-4
    )  # nobody knows who is who


def test_a_person_whose_images_differ_from_run_to_run_has_one_budget(ledger: Ledger) -> None:
    data = _examples(4, users=np.array([0, 0, 1, 1]))
    ledger.open(data, PrivacyBudget(1.3 * _ONCE, _DELTA), name="of users", unit="user")
    ledger.reserve(data.take([0, 2]), _EVENT, delta=_DELTA, unit="user")
    with pytest.raises(BudgetExceededError, match="every user may cost"):
        ledger.reserve(data.take([1, 3]), _EVENT, delta=_DELTA, unit="user")
    added = _examples(2, 7, users=np.array([0, 1]))
    ledger.add("of users", added)
    with pytest.raises(BudgetExceededError, match="every user may cost"):
        ledger.reserve(added, _EVENT, delta=_DELTA, unit="user")


def test_an_image_of_two_users_is_charged_as_that_of_the_one_who_has_more(ledger: Ledger) -> None:
    data = _examples(5)
    images = data.images[[0, 1, 2, 0, 4]]
    shared = LabeledDataset(images, data.labels, data.spec, np.array([0, 0, 0, 1, 2]))
    ledger.open(shared, PrivacyBudget(100, _DELTA), name="of users", unit="user")
    ledger.reserve(shared, _EVENT, delta=_DELTA)
    assert ledger.spent(shared.take([3]), _DELTA, "user") == pytest.approx(epsilon_of(group_event(_EVENT, 3), _DELTA))
    ledger.verify()


# Identity


def test_digests_have_a_key_which_stays_in_the_ledger(tmp_path: Path) -> None:
    data = _examples(50)
    one, other = (Ledger(tmp_path / name).identity(data) for name in ("a", "b"))
    assert not set(one.digests.tolist()) & set(other.digests.tolist())
    assert len(one.digests) == len(one) == 50
    np.testing.assert_array_equal(one.digests, Ledger(tmp_path / "a").identity(data.take(range(49, -1, -1))).digests)


def test_an_identity_can_be_kept(ledger: Ledger, tmp_path: Path) -> None:
    data = _examples(9, users=np.arange(9) // 2)
    identity = ledger.identity(data)
    identity.save(tmp_path / "identity.npz")
    assert stat.S_IMODE((tmp_path / "identity.npz").stat().st_mode) == 0o600
    kept = Identity.load(tmp_path / "identity.npz")
    ledger.reserve(kept, _EVENT, delta=_DELTA, unit="user")
    assert ledger.spent(data, _DELTA, "user") == pytest.approx(_ONCE)
    (tmp_path / "other").write_text("no identity")
    with pytest.raises(ValueError, match="should be an identity of examples"):
        Identity.load(tmp_path / "other")


# Damage


def test_what_was_changed_by_something_else_is_seen(tmp_path: Path) -> None:
    def made(name: str) -> Path:
        ledger = Ledger(tmp_path / name, account="scans")
        ledger.confirm(ledger.reserve(_examples(20), _EVENT, delta=_DELTA))
        ledger.reserve(_examples(20).take(range(10)), _EVENT, delta=_DELTA)
        return tmp_path / name

    for number, change in enumerate(
        (
            "UPDATE accounts SET epsilon = 1000",
            "UPDATE reservations SET state = 'void' WHERE id = 2",
            "UPDATE reservations SET event = replace(event, '8.0', '80.0')",
            "DELETE FROM reservations WHERE id = 2",
            "DROP TRIGGER history_refuses_update; UPDATE history SET body = '{}' WHERE number = 5",
            "DROP TRIGGER history_refuses_delete; DELETE FROM history WHERE number = 3",
            "UPDATE facts SET value = iif(value LIKE '0%', '1', '0') || substr(value, 2)",  # another key
            "DELETE FROM charges WHERE reservation = 1",
            "DELETE FROM memberships WHERE cohort = 2",
            "DELETE FROM examples WHERE chunk = (SELECT min(chunk) FROM examples)",
        )
    ):
        path = made(f"{number}.sqlite")
        Ledger(path).verify()
        connection = sqlite3.connect(path)
        connection.executescript(change)
        connection.commit()
        connection.close()
        with pytest.raises(TamperedError):
            Ledger(path).verify()
        if number < 9:
            with pytest.raises(TamperedError, match="Nothing is reserved in such a ledger"):
                Ledger(path).reserve(_examples(3), _EVENT, delta=_DELTA)


def test_the_history_cannot_be_changed_by_accident(ledger: Ledger) -> None:
    ledger.reserve(_examples(3), _EVENT, delta=_DELTA)
    connection = sqlite3.connect(ledger.address)
    for change in ("UPDATE history SET kind = 'x'", "DELETE FROM history"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(change)


def test_the_order_of_events_does_not_hang_on_the_clock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for year in (2031, 2019, 2025):
        monkeypatch.setattr("tfdpgen.privacy.accounts.history.now", lambda year=year: f"{year}-01-01T00:00:00+00:00")
        ledger.reserve(_examples(3), _EVENT, delta=_DELTA)
    assert [entry.reserved_at[:4] for entry in ledger.reservations()] == ["2031", "2019", "2025"]
    assert [entry.number for entry in ledger.history()] == [1, 2, 3, 4, 5, 6]
    ledger.verify()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"this is no database, but it is long enough to look like a file" * 20, "is no ledger, or a damaged one"),
        (None, "should be a file, or a database address; it is a folder"),
    ],
)
def test_what_is_no_ledger_is_an_error_and_not_an_empty_one(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "ledger.sqlite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(LedgerError, match=said):
        Ledger(path)
    with pytest.raises(LedgerError, match="There is no ledger"):
        Ledger(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_databases_of_something_else_and_of_other_versions_are_left_alone(tmp_path: Path) -> None:
    def database(name: str, *statements: str) -> Path:
        with sqlite3.connect(tmp_path / name) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
        return tmp_path / name

    with pytest.raises(LedgerError, match="is a database of something else"):
        Ledger(database("notes", "CREATE TABLE notes (text TEXT)"))
    with pytest.raises(LedgerError, match="knew data sets by the order of their examples"):
        Ledger(database("old", "CREATE TABLE reservations (id INTEGER PRIMARY KEY, dataset TEXT)"))
    later = ("CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES ('0999')")
    with pytest.raises(LedgerError, match="was written by a later version"):
        Ledger(database("later", *later))


def test_migrations_make_the_tables_that_the_code_has(ledger: Ledger) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{ledger.address}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://me:secret@host/db", "should hold no password"),
        ("postgresql://host/db?password=secret", "should hold no password"),
        ("mysql://host/db", "got a database of mysql"),
        ("://", "should be a path or an address"),
    ],
)
def test_addresses_that_are_none_are_refused_without_repeating_a_secret(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        Ledger(address)
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there_is_said_in_a_line() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerError, match=r"The ledger postgresql://127.0.0.1:9/x cannot be used: .*refused"):
        Ledger("postgresql://127.0.0.1:9/x")


# The digest by which a backup knows its training


def test_data_sets_are_told_apart_by_their_examples() -> None:
    spec = DataSpec((2, 2, 1), 2)
    dataset = LabeledDataset(np.zeros((3, 2, 2, 1), np.uint8), np.zeros(3, np.int64), spec)
    other = LabeledDataset(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 0, 1]), spec)
    assert dataset_id(dataset) == dataset_id(dataset.take([2, 1, 0])) != dataset_id(other)


@pytest.mark.parametrize("num_classes", [2, 256, 257, 70_000])
def test_a_data_set_has_one_id_in_memory_and_on_disk_which_never_changes(
    num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup knows its training by it."""
    spec, rng = DataSpec((2, 3, 1), num_classes), np.random.default_rng(0)
    images = rng.integers(256, size=(50, 2, 3, 1), dtype=np.uint8)
    labels = rng.integers(num_classes, size=50)
    labels[7] = num_classes - 1
    expected = hashlib.sha256(json.dumps([2, 3, 1]).encode() + images.tobytes() + labels.tobytes()).hexdigest()
    on_disk = RecordDataset([{"image": i, "label": y} for i, y in zip(images, labels, strict=True)], spec)
    for block_bytes in (1, 7 * 6, 2**20):
        monkeypatch.setattr(dataset_module, "_BLOCK_BYTES", block_bytes)
        assert dataset_id(LabeledDataset(images, labels, spec)) == dataset_id(on_disk) == expected
    named = DataSpec((2, 3, 1), num_classes, (0.0, 1.0), tuple(str(label) for label in range(num_classes)))
    assert dataset_id(LabeledDataset(images, labels, named)) == expected
    view = on_disk.take([3, 1])
    assert dataset_id(view) == dataset_id(LabeledDataset(images[[3, 1]], labels[[3, 1]], spec)) != expected
