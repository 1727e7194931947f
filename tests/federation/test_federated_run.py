"""The command: a federation in Flower's simulation and as separate processes, and processes of it that are killed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from components.artifacts import TrainedRelease
from pipelines.federated import FederationConfig
from pipelines.federated_run import FederatedRunConfig
from pipelines.federated_run import run as run_federation
from tests.federation.small import (
    METHOD,
    SITES,
    SPEC,
    TASK,
    USERS,
    dataset,
    fakes,
    site_of_node,
    sites_of,
    started,
    total,
)
from tfdpgen.federation.flower import FlowerSites, client_app, server_app, simulate
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.methods.training import planned
from tfdpgen.privacy import Ledger, PrivacyBudget, epsilon_of
from tfdpgen.release import Release

ROOT = Path(__file__).resolve().parents[2]
_USERS = 54  # digits by twenties

_REASON = "Flower is not installed: `make federated` makes an environment with it"


def _command(folder: Path, mode: str, sites: int, rounds: int, **flags: Any) -> list[str]:
    settings = {"rounds": rounds, "expected_users": 20, "generator_steps": 1, "generator_filters": 8}
    flags = {
        "mode": mode,
        "users": "iid:20",
        "num_sites": sites,
        "epsilon": 8.0,
        "delta": 1e-3,
        "settings": json.dumps(settings),
        "output_dir": folder,
        **flags,
    }
    return [sys.executable, "pipelines/federated_run.py", *(f"--{name}={value}" for name, value in flags.items())]


def _refused(*flags: str) -> str:
    outcome = subprocess.run(
        [sys.executable, "pipelines/federated_run.py", *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert outcome.returncode == 2, outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    return outcome.stderr


def test_settings_of_the_flower_app_are_those_of_the_server() -> None:
    facts = tomllib.loads((ROOT / "pipelines" / "flower_app" / "pyproject.toml").read_text())
    declared = facts["tool"]["flwr"]["app"]["config"]
    assert declared == {field.name: field.default for field in dataclasses.fields(FederationConfig)}


def test_settings_of_a_server_are_checked() -> None:
    for wrong, message in (
        ({"num_users": 0}, "`num_users` should be at least 1"),
        ({"delta": 0.1}, "`delta` should be smaller than"),
        ({"settings": "{"}, "`settings` should be JSON"),
        ({"round_seconds": 0.0}, "`round_seconds` should be greater than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            FederationConfig(**{"num_users": 50, **wrong})
    config = FederationConfig(num_users=50, image_shape="8,8,1", settings='{"rounds": 7}', classes="a,b", num_classes=2)
    assert config.spec.image_shape == (8, 8, 1)
    assert config.spec.class_names == ("a", "b")
    assert config.chosen() == dataclasses.replace(FedAvgGAN.for_data(config.spec, 50), rounds=7)
    for wrong, message in (
        ({"settings": '{"clip": 1}'}, "got clip"),
        ({"method": "gs_wgan"}, "can be trained at sites"),
        ({"method": "wgan"}, "should be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            FederationConfig(**{"num_users": 50, **wrong}).chosen()


def test_bad_input_is_refused_in_a_line_and_nothing_is_spent(tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason=_REASON)
    folder = f"--output_dir={tmp_path}"
    assert "`users` should be given with `method` fedavg_gan" in _refused(folder)
    assert "`mode` should be simulation or processes" in _refused(folder, "--mode=threads")
    assert "`num_sites` should be at most 3" in _refused(folder, "--users=iid:400", "--num_sites=4", "--delta=1e-3")
    assert "`delta` should be smaller" in _refused(folder, "--users=iid:20", "--delta=.1")
    assert "can be trained at sites" in _refused(folder, "--users=iid:20", "--method=gaussian_mixture")
    yours = tmp_path / "internal" / "sites" / "thesis.npz"
    yours.parent.mkdir(parents=True)
    yours.touch()
    assert f"{yours} is in the way" in _refused(folder, "--users=iid:20", "--delta=1e-3")
    assert yours.exists()
    assert not (tmp_path / "internal" / "ledger.sqlite").exists()


def test_without_flower_an_error_names_the_extra() -> None:
    program = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'flwr' else find(name, *rest)\n"
        "from tfdpgen.federation.flower import client_app\n"
        "client_app(None)\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 1
    assert "pip install 'tfdpgen[federated]'" in outcome.stderr.splitlines()[-1]


@pytest.mark.slow
def test_simulated_sums_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With draws that are the same in every process."""
    pytest.importorskip("flwr", reason=_REASON)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found, chosen = [], ([0, 5, 11], [], list(range(USERS)))

    def serve(grid: Any, _: Any) -> None:
        sites = FlowerSites(grid, SPEC, USERS, num_sites=SITES, say=None)
        sites.announce(METHOD)
        network = TASK.work().network
        network.set_weights(started())
        sum_of = sites.sums(TASK.mechanism, network)
        found.extend(sum_of(np.array(sampled, np.int64), fakes()) for sampled in chosen)

    simulate(server_app(serve), client_app(site_of_node), num_sites=SITES)
    assert len(found) == 3
    order = {f"site-{number}": site for number, site in enumerate(sites_of(dataset()))}
    for sampled, sums in zip(chosen, found, strict=True):
        np.testing.assert_allclose(sums, total(list(order.values()), sampled), atol=1e-5)


def _check_release(folder: Path, rounds: int, sites: int) -> dict[str, Any]:
    """The outcome of a run; its release promises what was reserved, whatever was lost."""
    artifact = TrainedRelease.open(folder / "release")
    assert not artifact.parameters["ledger_id"]  # which is a digest of private examples
    release = Release.load(artifact.path)
    method = FedAvgGAN.for_data(release.spec, _USERS)
    method = dataclasses.replace(method, rounds=rounds, expected_users=20)
    _, plan = planned(method, release.spec, _USERS, PrivacyBudget(8.0, 1e-3))
    assert release.statement.epsilon == pytest.approx(plan.epsilon(1e-3), rel=1e-9)
    assert release.statement.num_examples == _USERS
    assert release.statement.unit == "one user with all of that user's images, however many"
    assert release.is_releasable
    assert release.sample([0, 1], 0).shape == (2, 8, 8, 1)
    outcome = json.loads((folder / "internal" / "federation.json").read_text())
    assert outcome["rounds"] == rounds
    assert outcome["epsilon"] == release.statement.epsilon
    (entry,) = (ledger := Ledger(folder / "internal" / "ledger.sqlite")).reservations()
    assert entry.state == "confirmed"
    assert entry.num_examples == 1_077  # of the digits, not of sites
    (account,) = ledger.standings()
    assert account.spent == pytest.approx(epsilon_of(release.event, 1e-3), rel=1e-3)
    assert len(list((folder / "internal" / "sites").glob("*.npz"))) == sites
    return outcome


class Run:
    """The command in a process of its own, whose output is read while it runs."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log, file = log, log.open("wb")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        self.seen = psutil.Process(self.process.pid)

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, found: Callable[[], Any], seconds: float = 300.0) -> Any:
        """What is found first that is not empty."""
        deadline = time.monotonic() + seconds
        while not (value := found()):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)
        return value

    def processes(self, *words: str) -> list[psutil.Process]:
        """All processes that it has started, and these have, with all of these words in their command line."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                found.append(process)
        return found


@pytest.fixture
def started_run(tmp_path: Path) -> Iterator[Callable[[list[str]], Run]]:
    runs: list[Run] = []

    def start(command: list[str]) -> Run:
        runs.append(Run(command, tmp_path / "log.txt"))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.wait(60)


@pytest.mark.slow
def test_a_site_that_is_killed_within_a_round_costs_that_round(
    tmp_path: Path, started_run: Callable[[list[str]], Run]
) -> None:
    """SuperLink, SuperNodes and server are processes; the SuperNode and the training of one are killed by SIGKILL."""
    pytest.importorskip("flwr", reason=_REASON)
    run = started_run(_command(tmp_path, "processes", 3, rounds=5, round_seconds=60))
    run.until(lambda: "1/5 [" in run.said)
    (node,) = run.processes("flower-supernode", str(tmp_path), "site-001")
    port = next(word.partition("=")[2] for word in node.cmdline() if word.startswith("--port="))
    (training,) = run.until(lambda: run.processes("flwr-clientapp", f"127.0.0.1:{port}"))
    for process in (training, node):
        os.kill(process.pid, signal.SIGKILL)
    assert run.process.wait(600) == 0, run.said
    print(run.said)
    outcome = _check_release(tmp_path, rounds=5, sites=3)
    assert len(outcome["lost"]) == 1
    (lost,) = outcome["lost"]
    assert lost["round"] in (2, 3)
    assert set(lost["sites"]) == {"site-001"}
    assert re.search("no reply within 60 seconds|Node Unavailable", lost["sites"]["site-001"])
    assert outcome["rounds_without_some_site"] == 5 - lost["round"]
    assert f"Round {lost['round']} is lost: charged, and not applied (site-001: " in run.said
    assert "Rounds: 5 charged, of which 1 lost and not applied" in run.said
    assert not run.processes("flower-supernode", str(tmp_path))


@pytest.mark.slow
def test_a_simulated_site_that_is_killed_costs_a_round(tmp_path: Path, started_run: Callable[[list[str]], Run]) -> None:
    """Flower does not replace the process of Ray that ran it, and goes on giving it work, which fails at once."""
    pytest.importorskip("flwr", reason=_REASON)
    run = started_run(_command(tmp_path, "simulation", 4, rounds=100, workers=2, round_seconds=60))
    run.until(lambda: "/100 [" in run.said)
    actors = run.until(lambda: run.processes("ray::ClientAppActor"))
    os.kill(actors[0].pid, signal.SIGKILL)
    assert run.process.wait(600) == 0, run.said
    print(run.said)
    outcome = _check_release(tmp_path, rounds=100, sites=4)
    assert 1 <= len(outcome["lost"]) < 50  # and the others are not spoilt
    assert outcome["rounds_without_some_site"] > 0
    assert f"Rounds: 100 charged, of which {len(outcome['lost'])} lost and not applied" in run.said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"method": "fedavg"}, "Did you mean fedavg_gan"),
        ({"users": ""}, "`users` should be given with `method` fedavg_gan"),
        ({"users": "iid:0"}, "`users` should be empty, or iid:NUMBER or by_class:NUMBER"),
    ],
)
def test_settings_are_refused_before_anything_is_read(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FederatedRunConfig(**{"users": "iid:20"} | flags)


def test_a_delta_too_large_speaks_of_users() -> None:
    with pytest.raises(ValueError, match=r"smaller than 1 / num_users.*all examples of a user outright.*for 90 users"):
        FederationConfig(num_users=90, delta=0.5)


def test_a_folder_that_is_no_release_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        run_federation(FederatedRunConfig(users="iid:20", output_dir=str(tmp_path)))
    assert ended.value.code == 2
    assert "holds something that is not an artifact" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["release", "thesis.txt"]
