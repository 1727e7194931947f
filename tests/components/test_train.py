"""The training step and the ledger: nothing comes out that the ledger does not know to have run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components import ComponentError, PrivateNetworks
from components.ingest import ingest
from components.train import train
from tfdpgen.data import Splits
from tfdpgen.privacy import Backup, Ledger, LedgerError


@pytest.fixture
def step(tmp_path: Path) -> tuple[Any, ...]:
    """Inputs, outputs and parameters of a training with a ledger and a backup."""
    ingest.execute({}, {"examples": tmp_path / "examples"})
    outputs = {name: tmp_path / name for name in ("release", "networks")}
    places = {"ledger": str(tmp_path / "ledger.sqlite"), "backup": str(tmp_path / "backup")}
    return {"examples": tmp_path / "examples"}, outputs, places


def test_a_training_that_the_ledger_cannot_take_down_loses_nothing_and_goes_on(
    step: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(ledger: Ledger, reservation: str) -> None:
        raise LedgerError("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "confirm", gone)
        with pytest.raises(ComponentError, match=r"nothing comes out. The database is away. The backup keeps what"):
            train.execute(*step)
    assert not (tmp_path / "release").exists()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    (reserved,) = ledger.reservations()
    assert reserved.state == "reserved"
    assert f"{tmp_path})" in reserved.purpose

    train.execute(*step)
    (again,) = ledger.reservations()
    assert (again.name, again.state) == (reserved.name, "confirmed")
    assert not (tmp_path / "backup").exists()
    facts = PrivateNetworks.open(tmp_path / "networks").facts["ledger"]
    assert facts["reservation"] == reserved.name
    assert [account["runs"] for account in facts["accounts"]] == [1]


def test_a_training_is_killed_after_all_is_bought_and_before_it_has_its_name(
    step: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PrivateNetworks, "seal", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train.execute(*step)
    train.execute(*step)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert len(ledger.reservations(Splits.load(tmp_path / "examples").train)) == 1


def test_what_a_kill_leaves_of_a_finished_training_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    backup = Backup(folder)
    backup.__enter__()
    assert not backup.holds({"method": "c_vae"})
    backup.begin({"method": "c_vae"}, "5f2c")
    Backup.of_finished(folder, "5f2c")  # somebody is at work in it
    assert folder.exists()
    backup.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    Backup.of_finished(tmp_path / "nowhere", "5f2c")
    Backup.of_finished(folder, "another")
    assert folder.exists()
    Backup.of_finished(folder, "5f2c")
    assert list(tmp_path.iterdir()) == []


def test_what_its_owner_calls_void_while_it_runs_does_not_come_out(
    step: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm = Ledger.confirm

    def voided(ledger: Ledger, reservation: str) -> None:
        if ledger.reservations()[0].state == "reserved":
            ledger.void(reservation, reason="I thought that it had crashed")
        confirm(ledger, reservation)

    monkeypatch.setattr(Ledger, "confirm", voided)
    with pytest.raises(ValueError, match="is void already, and cannot be made confirmed"):
        train.execute(*step)
    assert not (tmp_path / "release").exists()
