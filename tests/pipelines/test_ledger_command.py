"""`tfdpgen ledger`: what an owner types and reads."""

from __future__ import annotations

import getpass
import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import default_ledger
from pipelines.ledger_command import main
from tfdpgen.data import load_splits
from tfdpgen.privacy import Ledger, NoisyCounts, epsilon_of

_EVENT = NoisyCounts().with_noise(8.0).event
_ONCE = epsilon_of(_EVENT, 1e-5)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(256, size=(60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "scans.npz", images=images, labels=np.arange(60) % 3, user_ids=np.arange(60) // 4)
    return tmp_path / "scans.npz"


def _said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(arguments, "tfdpgen ledger") == status
    out = capsys.readouterr()
    assert (out.err == "") is (status == 0)
    return out.err or out.out


def _opened(capsys: pytest.CaptureFixture[str], scans: Path, *more: str) -> str:
    flags = "--epsilon=2", "--name=scans", "--image_shape=8,8,1", "--num_classes=3"
    return _said(capsys, "open", f"--dataset={scans}", *flags, *more)


def test_an_account_is_opened_for_all_parts_of_a_data_set(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = _opened(capsys, scans)
    assert "examples      60" in said
    assert "may cost      epsilon 2 at delta 1e-05, for every example, in all runs together" in said
    assert "has cost      epsilon 0 in 0 runs" in said
    assert "can pay       one more run of about epsilon 2 at that delta\n" in said
    ledger = Ledger(default_ledger(), create=False)
    splits = load_splits(str(scans), image_shape=(8, 8, 1), num_classes=3, verbose=False)
    for part in (splits.train, splits.test, splits.holdout):
        assert [account.name for account in ledger.standings(part)] == ["scans"]
    name = ledger.reserve(splits.train, _EVENT, delta=1e-5, purpose="train c_vae")
    ledger.reserve(splits.train, _EVENT, delta=1e-5, purpose="train dp_gan")
    ledger.confirm(name)

    status = _said(capsys, "status")
    spent = ledger.spent(splits.train, 1e-5)
    assert f"has cost      epsilon {spent:.3g} in 2 runs, for the example that has paid most" in status
    fits = float(re.search(r"one more run of about epsilon ([\d.]+)", status)[1])  # pyright: ignore[reportOptionalSubscript]
    assert 1.5 < fits < 2.0
    assert "not finished  1 run, which may be running or have crashed, and count all the same" in status
    assert "never given back" in " ".join(status.split())

    history = _said(capsys, "history").splitlines()
    assert "opened 'scans': every example may cost epsilon 2 at delta 1e-05" in history[2]
    assert history[3].endswith("'scans' now has 60 examples")
    assert f"reserved epsilon {_ONCE:.3g} at delta 1e-05 for train c_vae, of 36 examples of 'scans' [" in history[4]
    assert history[6].endswith(f"finished [{name[:8]}]")


def test_a_user_account_counts_people(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "for every user, in all runs" in _opened(capsys, scans, "--unit=user")
    splits = load_splits(str(scans), image_shape=(8, 8, 1), num_classes=3, verbose=False)
    ledger = Ledger(default_ledger())
    ledger.reserve(splits.train, _EVENT, delta=1e-5)
    together = epsilon_of(NoisyCounts().with_noise(2.0).event, 1e-5)  # of four images
    assert ledger.spent(splits.train, 1e-5, "user") == pytest.approx(together, rel=1e-3)


def test_an_owner_changes_totals_joins_and_voids_with_reasons(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _opened(capsys, scans)
    assert "there is an account 'scans' already" in _said(
        capsys, "open", "--dataset=digits", "--name=scans", "--epsilon=1", status=2
    )
    _said(capsys, "limit", "scans", "--epsilon=2", "--delta=1e-7", "--reason=stricter")
    said = _said(capsys, "limit", "scans", "--epsilon=3", "--reason=the board agreed")
    assert said.startswith("Before: epsilon 2 at delta 1e-07. Now:\nscans\n")
    assert "may cost      epsilon 3 at delta 1e-07, " in said
    _said(capsys, "open", "--dataset=digits", "--epsilon=5")
    said = _said(capsys, "join", "scans", "digits", "--reason=for a test")
    assert "together with digits" in said
    ledger = Ledger(default_ledger())
    splits = load_splits("digits", verbose=False)
    name = ledger.reserve(splits.train, _EVENT, delta=1e-5)
    assert "begins 1" in _said(capsys, "void", name[:6], "--reason=never began", status=2)
    assert f"[{name[:8]}] no longer counts: a run, of 20" in _said(capsys, "void", name[:8], "--reason=never began")
    assert "begins 0" in _said(capsys, "void", "zzz", "--reason=x", status=2)
    history = _said(capsys, "history")
    me = getpass.getuser()
    assert f"({me}: the board agreed)" in history
    assert f"said that 'digits', 'scans' belong together ({me}: for a test)" in history
    assert f"[{name[:8]}] is said not to have run, and no longer counts ({me}: never began)" in history


def test_status_and_history_of_some_accounts(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _opened(capsys, scans)
    said = _opened(capsys, scans, "--name=again")
    assert "Some of these examples are in 'scans' too, and are held to each total." in said
    _said(capsys, "open", "--dataset=digits", "--epsilon=5")
    status = _said(capsys, "status", "digits")
    assert "digits\n  examples      1,797" in status
    assert "scans" not in status
    history = _said(capsys, "history", "digits")
    assert "opened 'digits'" in history
    assert "scans" not in history
    assert "There is no account 'digit'" in _said(capsys, "status", "digit", status=2)


def test_status_of_a_ledger_that_was_changed_warns(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _opened(capsys, scans)
    assert "DO NOT RELY" not in _said(capsys, "status")
    connection = sqlite3.connect(default_ledger())
    connection.execute("UPDATE accounts SET epsilon = 30")
    connection.commit()
    connection.close()
    assert _said(capsys, "status").startswith("DO NOT RELY ON THIS: the account 'scans' of the ledger is not what")


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([], "tfdpgen ledger")
    assert "tfdpgen ledger COMMAND" in capsys.readouterr().out


def test_what_is_exported_has_no_key_and_no_digest_of_an_example(
    scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _opened(capsys, scans)
    ledger = Ledger(default_ledger())
    ledger.reserve(load_splits(str(scans), image_shape=(8, 8, 1), num_classes=3).train, _EVENT, delta=1e-5)
    capsys.readouterr()
    text = _said(capsys, "export")
    exported = json.loads(text)
    assert [account["name"] for account in exported["accounts"]] == ["scans"]
    assert exported["reservations"][0]["event"] == {"type": "gaussian", "noise_multiplier": 8.0}
    assert exported["head"] == exported["history"][-1]["digest"] == ledger.verify()
    assert ledger._key.hex() not in text
    assert "all 64 characters" in _said(capsys, "verify", f"--head={exported['head'][:8]}", status=2)
    assert f"Head: {exported['head']}" in _said(capsys, "verify", f"--head={exported['history'][0]['digest']}")
    assert "it is another one" in _said(capsys, "verify", f"--head={'0' * 64}", status=1)


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no database")
    assert "is no ledger" in _said(capsys, "status", f"--ledger={tmp_path / 'notes.txt'}", status=1)
    assert (tmp_path / "notes.txt").read_text() == "no database"
    assert "There is no ledger" in _said(capsys, "status", f"--ledger={tmp_path / 'none'}", status=1)
    assert not (tmp_path / "none").exists()
    Ledger(tmp_path / "empty.sqlite")
    assert "nothing was spent" in _said(capsys, "status", f"--ledger={tmp_path / 'empty.sqlite'}")
    assert "`epsilon` should be" in _said(capsys, "open", "--dataset=digits", "--epsilon=-1", status=2)
    with pytest.raises(SystemExit) as ended:
        main(["sttus"])
    assert ended.value.code == 2
