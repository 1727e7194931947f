"""Many processes at one ledger, on SQLite and on a real PostgreSQL server, and processes that are killed."""

from __future__ import annotations

import concurrent.futures
import glob
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import (
    BudgetExceededError,
    Ledger,
    LedgerError,
    NoisyCounts,
    PrivacyBudget,
    TamperedError,
    epsilon_of,
)
from tfdpgen.privacy.accounts import store

_DELTA = 1e-5
_EVENTS = [NoisyCounts().with_noise(noise).event for noise in (6.0, 9.0, 14.0)]
_PROCESSES = 16
# From a server of their own that imports this module: a fork of a process with threads may never get a lock.
_SERVED = multiprocessing.get_context("forkserver")
_SERVED.set_forkserver_preload([__name__])


def _data() -> LabeledDataset:
    images = np.random.default_rng(0).integers(256, size=(40, 2, 2, 1), dtype=np.uint8)
    return LabeledDataset(images, np.zeros(40, np.int64), DataSpec((2, 2, 1), 2))


def _program(name: str) -> str | None:
    """A program of PostgreSQL's server, which Debian keeps off the path."""
    found = shutil.which(name)
    return found or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)


class Server:
    """A PostgreSQL server of its own, reached by a socket."""

    def __init__(self, folder: Path) -> None:
        self._programs = {name: _program(name) for name in ("initdb", "postgres")}
        if not all(self._programs.values()):
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        self._as = {"user": "postgres"} if os.geteuid() == 0 else {}  # it refuses to be run by root
        self.folder, self._process = folder, None
        if self._as:
            shutil.chown(folder, "postgres")
        command = [self._programs["initdb"], "-D", folder / "data", "-A", "trust", "-U", "owner", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as)
        self.start()

    @property
    def address(self) -> str:
        return f"postgresql://owner@/postgres?host={self.folder}"

    def start(self) -> None:
        command = [self._programs["postgres"], "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses="]
        self._process = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **self._as)
        for _ in range(600):
            try:
                return Ledger(self.address) and None
            except LedgerError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def stop(self, number: int = signal.SIGINT) -> None:
        self._process.send_signal(number)
        self._process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("psycopg")
    folder = Path("/tmp") / f"pg-{os.getpid()}"  # pytest's own folders are closed to others, and long for a socket
    folder.mkdir(mode=0o711)
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    server = request.getfixturevalue("server")
    name = f"ledger_{random.getrandbits(40):x}"
    import psycopg

    with psycopg.connect(f"host={server.folder} user=owner dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.address.replace("/postgres?", f"/{name}?")


def _attempt(address: str, number: int) -> str | Exception | None:
    rng = random.Random(number)
    data = _data()
    part = data if rng.random() < 0.5 else data.take(rng.sample(range(40), 20))
    try:
        return Ledger(address).reserve(part, rng.choice(_EVENTS), delta=_DELTA, purpose=str(number))
    except BudgetExceededError:
        return None
    except (LedgerError, TamperedError) as error:
        return error


def _racing(address: str, attempts: int) -> list[str | Exception | None]:
    with concurrent.futures.ProcessPoolExecutor(_PROCESSES, mp_context=_SERVED) as pool:
        return list(pool.map(_attempt, [address] * attempts, range(attempts), timeout=300))


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize(("attempts", "total"), [(60, 1.6), pytest.param(200, 3.0, marks=pytest.mark.slow)])
def test_what_racing_processes_are_granted_never_exceeds_the_total(address: str, attempts: int, total: float) -> None:
    """And no attempt is lost: each is granted, and is there, or is refused, and is not."""
    Ledger(address).open(_data(), PrivacyBudget(total, _DELTA), name="contested")
    outcomes = _racing(address, attempts)
    assert [error for error in outcomes if isinstance(error, Exception)] == []
    granted = [name for name in outcomes if isinstance(name, str)]
    ledger = Ledger(address)
    assert sorted(granted) == sorted(entry.name for entry in ledger.reservations())
    assert 5 < len(granted) < attempts / 2
    spent = ledger.spent(_data(), _DELTA)
    assert spent <= total
    assert spent + epsilon_of(_EVENTS[-1], _DELTA) > total  # nobody was refused for nothing
    for place in range(40):
        assert ledger.spent(_data().take([place]), _DELTA) <= total
    ledger.verify()


@pytest.mark.xdist_group("postgresql")
def test_processes_that_make_the_ledger_at_once_make_one(address: str) -> None:
    with concurrent.futures.ProcessPoolExecutor(_PROCESSES, mp_context=_SERVED) as pool:
        digests = list(pool.map(_digest, [address] * _PROCESSES, timeout=120))
    assert len(set(digests)) == 1
    Ledger(address).verify()


def _digest(address: str) -> int:
    return int(Ledger(address).identity("one").digests[0])


def _work(address: str, pipe: Any, number: int) -> None:
    """Runs, and is killed somewhere: says what has run only where the ledger had said yes."""
    ledger, rng = Ledger(address), random.Random(number)
    while True:
        data = _data().take(rng.sample(range(40), 30))
        name = ledger.reserve(data, NoisyCounts().with_noise(900.0).event, delta=_DELTA)
        pipe.send(name)
        if rng.random() < 0.5:
            ledger.confirm(name)


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_a_ledger_whose_users_are_killed_has_at_least_what_ran(address: str, kills: int) -> None:
    Ledger(address).open(_data(), PrivacyBudget(50, _DELTA), name="contested")
    ran: list[str] = []
    rng = random.Random(0)
    for number in range(kills):
        ours, theirs = _SERVED.Pipe(duplex=False)
        process = _SERVED.Process(target=_work, args=(address, theirs, number))
        process.start()
        theirs.close()
        if not ours.poll(60):
            raise AssertionError("it hangs")
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        while True:
            try:
                ran.append(ours.recv())
            except EOFError:
                break
        ledger = Ledger(address)
        ledger.verify()
        assert set(ran) <= {entry.name for entry in ledger.reservations()}
    assert len(ran) >= kills
    assert {entry.state for entry in Ledger(address).reservations()} == {"reserved", "confirmed"}


@pytest.mark.xdist_group("postgresql")
def test_a_server_that_is_killed_keeps_what_it_has_granted(server: Server) -> None:
    ledger = Ledger(server.address)
    names = [ledger.reserve(_data(), _EVENTS[2], delta=_DELTA) for _ in range(3)]
    server.stop(signal.SIGQUIT)  # at once, as in a crash
    with pytest.raises(LedgerError, match="Nothing was reserved"):
        ledger.reserve(_data(), _EVENTS[2], delta=_DELTA)
    server.start()
    assert [entry.name for entry in ledger.reservations(_data())] == names
    ledger.verify()


def test_a_ledger_that_is_locked_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(1.5, lambda: other.execute("COMMIT")).start()
    began = time.monotonic()
    ledger.reserve(_data(), _EVENTS[0], delta=_DELTA)
    assert time.monotonic() - began > 1


def test_a_ledger_that_stays_locked_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.5)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match=r"has been in use by another process for .* seconds. Nothing was reserved"):
        ledger.reserve(_data(), _EVENTS[0], delta=_DELTA)
    other.execute("COMMIT")
    assert not ledger.reservations()
