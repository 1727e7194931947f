"""A federation on this machine, from a data set whose users are dealt to sites: for experiments and demonstrations.

    python pipelines/federated_run.py --users=iid:20 --num_sites=4 --epsilon=10                      # in simulation
    python pipelines/federated_run.py --users=iid:20 --num_sites=4 --epsilon=10 --mode=processes     # over loopback

In simulation Flower's engine runs sites in processes of Ray. With --mode=processes every site is a SuperNode of its
own, and the server runs behind a SuperLink: the programs that real machines run, as docs/federated.md shows, on
127.0.0.1 and without TLS. The release goes to output_dir/release, what became of the rounds to
output_dir/internal/federation.json. Exits 0 with a release, 1 where the federation failed, and 2 on a bad flag or bad
data, before anything is spent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from absl import app
from absl import logging as absl_logging

from components.component import check_replaceable, message_of, quiet_start, quiet_tensorflow
from components.ingest import declared
from pipelines.config import default_ledger
from pipelines.federated import ERROR, OUTCOME, RELEASE, FederationConfig, open_internal, serve, site_in
from pipelines.local_run import flags_parser
from tfdpgen.choices import check_budget, check_knows_users, check_method
from tfdpgen.data.synthetic_users import parse_users
from tfdpgen.federation.flower import check_installed, client_app, server_app, simulate
from tfdpgen.privacy.accounts.store import LedgerError

if TYPE_CHECKING:
    from tfdpgen.data import Dataset, DataSpec

_APP = Path(__file__).resolve().parent / "flower_app"
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONWARNINGS": "ignore::DeprecationWarning:gast.astn",  # of AutoGraph, which Flower and Ray would show
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # nothing is reported to anybody, or installed


@dataclasses.dataclass(frozen=True)
class FederatedRunConfig:
    """Settings of a run.

    Raises:
      ValueError: if a field lies outside its range.
    """

    mode: str = "simulation"
    """simulation (Flower's engine on Ray), or processes (SuperLink, SuperNodes and server on 127.0.0.1)."""

    dataset: str = "digits"
    """Private examples, as of the local run; the training split is dealt to sites."""

    data_dir: str = ""
    """Where TFDS keeps its data sets; empty: TFDS's default."""

    image_shape: str = ""
    """height,width,channels; empty: as the source declares."""

    num_classes: int = 0
    """Number of classes; 0: as the source or classes declares."""

    value_range: str = ""
    """lowest,highest value that a pixel can have; empty: as the source declares."""

    classes: str = ""
    """Names of the classes in the order of their labels, with commas between. Published."""

    resize: str = "error"
    """What happens to images of other sides than image_shape: error, crop, pad or stretch."""

    user_column: str = "user"
    """Column of a table that says whose an example is."""

    users: str = ""
    """Make up users: iid:20 or by_class:20. Empty: the users of the source."""

    num_sites: int = 4
    """Sites that the users are dealt to, as evenly as can be."""

    method: str = "fedavg_gan"
    """The method."""

    settings: str = ""
    """Settings of the method as JSON, as in {"rounds": 300}; the rest as it chooses them."""

    epsilon: float = 3.0
    """Privacy budget of each user."""

    delta: float = 1e-5
    """Privacy budget: has to be smaller than 1 / number of users."""

    ledger: str = ""
    """Where the ledger is: a file, or a database address. Empty: the one of this user account."""

    total_epsilon: float = 10.0
    """What every user may cost in all runs together, where the ledger does not know them yet."""

    output_dir: str = "output"
    """Folder that receives release/; its sub-folder internal/ holds the sites' examples."""

    seed: int = 0
    """Seed of initial weights and fakes; never of noise, samples or anything at a site."""

    round_seconds: float = 600.0
    """After which a round is lost where a site has not replied."""

    workers: int = 1
    """Sites that train at a time in simulation."""

    def __post_init__(self) -> None:
        if self.mode not in ("simulation", "processes"):
            raise ValueError(f"`mode` should be simulation or processes; got {self.mode!r}.")
        check_method(self.method)
        if self.users:
            parse_users(self.users)
        check_knows_users(self.method, self.dataset, self.users)
        for name in ("num_sites", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1; got {getattr(self, name)}.")
        if not self.round_seconds > 0:
            raise ValueError(f"`round_seconds` should be greater than 0; got {self.round_seconds!r}.")
        check_budget(self.epsilon, self.delta)
        declared(self.image_shape, self.num_classes, self.value_range, self.classes, self.resize)


def run(config: FederatedRunConfig) -> None:
    """Deals the users to sites and trains.

    Raises:
      SystemExit: with 2 and a line where nothing was spent, with 1 and a line where the federation failed.
    """
    folder = Path(config.output_dir).expanduser().absolute()
    internal = folder / "internal"
    try:
        check_replaceable(folder / RELEASE)
        check_installed()
        quiet_tensorflow()
        dataset, users = _read(config)
        if config.num_sites > users:
            raise ValueError(
                f"`num_sites` should be at most {users}, as many as there are users; got {config.num_sites}."
            )
        open_internal(internal)
        server = _server_config(config, dataset, users)
        server.chosen()
        deal(dataset, config.num_sites, internal / "sites")
    except (ImportError, LedgerError, OSError, ValueError) as error:
        print(f"federated_run.py: {message_of(error)}", file=sys.stderr)
        sys.exit(2)
    spec = dataset.spec
    del dataset  # from here on the sites alone have examples
    print(f"{users} users at {config.num_sites} sites; {config.mode}.", flush=True)
    try:
        with _environment():
            if config.mode == "simulation":
                _simulate(server, internal / "sites", config.workers)
            else:
                _run_processes(server, spec, internal)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"federated_run.py: {message_of(error)}")
    if not (internal / OUTCOME).exists():
        reason = internal / ERROR
        said = reason.read_text() if reason.exists() else "the server ended without a release."
        sys.exit(f"federated_run.py: {said}")


def _read(config: FederatedRunConfig) -> tuple[Dataset, int]:
    """The training split, and how many users it is of.

    Raises:
      ValueError: if it does not say whose its examples are.
    """
    from tfdpgen.data import load_splits
    from tfdpgen.methods.training import num_units

    facts = declared(config.image_shape, config.num_classes, config.value_range, config.classes, config.resize)
    splits = load_splits(
        config.dataset,
        data_dir=config.data_dir or None,
        **dataclasses.asdict(facts),
        user_column=config.user_column,
        users=config.users,
        verbose=False,
    )
    return splits.train, num_units(config.method, splits.train)


def _server_config(config: FederatedRunConfig, dataset: Dataset, users: int) -> FederationConfig:
    """What the server is told: public facts, and where it finds who the examples are to its ledger."""
    from tfdpgen.privacy import Ledger

    spec = dataset.spec
    folder, ledger = Path(config.output_dir).expanduser().absolute(), config.ledger or default_ledger()
    identity = folder / "internal" / "identity.npz"
    Ledger(ledger).identity(dataset).save(identity)
    return FederationConfig(
        num_users=users,
        num_sites=config.num_sites,
        method=config.method,
        settings=config.settings,
        image_shape=",".join(map(str, spec.image_shape)),
        num_classes=spec.num_classes,
        classes=",".join(f'"{name}"' for name in spec.class_names),
        epsilon=config.epsilon,
        delta=config.delta,
        output_dir=str(folder),
        seed=config.seed,
        round_seconds=config.round_seconds,
        ledger=ledger,
        total_epsilon=config.total_epsilon,
        account=config.dataset,
        identity=str(identity),
    )


def deal(dataset: Dataset, num_sites: int, folder: Path) -> None:
    """Writes a file for each site, site-000.npz and so on, with whole users in each.

    Args:
      dataset: with `user_ids`.
      num_sites: at most as many as there are users.
      folder: made anew, for its owner alone.

    Raises:
      ValueError: if something else is there.
    """
    if folder.exists():
        if strange := [path.name for path in folder.iterdir() if not re.fullmatch(r"site-\d{3,}\.npz", path.name)]:
            raise ValueError(f"{folder / strange[0]} is in the way: no run has written it. Give another --output_dir.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    owner = np.asarray(dataset.user_ids)
    for number, users in enumerate(np.array_split(np.unique(owner), num_sites)):
        places = np.flatnonzero(np.isin(owner, users))
        images, labels = dataset.examples(places)
        np.savez(folder / f"{_name(number)}.npz", images=images, labels=labels, user_ids=owner[places])


def _name(number: int) -> str:
    """What a site is called."""
    return f"site-{number:03d}"


def _site_of_partition(folder: str, context: Any, spec: DataSpec) -> tuple[str, Any]:
    """The site of a simulated SuperNode."""
    name = _name(int(context.node_config["partition-id"]))
    return name, site_in(f"{folder}/{name}.npz", spec)


def _simulate(server: FederationConfig, folder: Path, workers: int) -> None:
    """Runs the federation in Flower's simulation engine."""
    simulate(
        server_app(lambda grid, _: serve(grid, server)),
        client_app(functools.partial(_site_of_partition, str(folder))),
        num_sites=server.num_sites,
        workers=workers,
    )


def _run_processes(server: FederationConfig, spec: DataSpec, internal: Path) -> None:
    """Starts a SuperLink and SuperNodes on 127.0.0.1, submits the run, and shows what the server says.

    Raises:
      RuntimeError: if one of them cannot be started.
    """
    home = internal / "flower"
    home.mkdir(exist_ok=True)
    ports = _free_ports(server.num_sites + 1)
    link = f"127.0.0.1:{ports[0]}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "loopback"\n\n[superlink.loopback]\naddress = "{link}"\ninsecure = true\n'
    )
    environment = {"FLWR_HOME": str(home)}
    with contextlib.ExitStack() as stack:
        command = ["flower-superlink", "--insecure", "--host=127.0.0.1", f"--port={ports[0]}"]
        superlink = stack.enter_context(_process(command, home / "superlink.log", environment))
        _wait_for(ports[0], superlink)
        for number, port in enumerate(ports[1:]):
            name = _name(number)
            settings = f'site="{name}" examples="{internal / "sites" / name}.npz"'
            command = ["flower-supernode", "--insecure", f"--superlink={link}", "--host=127.0.0.1", f"--port={port}"]
            stack.enter_context(_process([*command, f"--node-config={settings}"], home / f"{name}.log", environment))
        settings = home / "run.toml"
        settings.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in vars(server).items()))
        command = ["flwr", "run", str(_APP), "loopback", "--stream", f"--run-config={settings}"]
        outcome = subprocess.run(command, env={**os.environ, **environment})
        if outcome.returncode:
            raise RuntimeError(f"flwr run ended with {outcome.returncode}; logs are in {home}.")


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What Flower and Ray read from the environment, and where their programs and this package are."""
    before = dict(os.environ)
    root = str(Path(__file__).resolve().parents[1])
    os.environ |= _ENVIRONMENT
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before.get("PATH", "")])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, before.get("PYTHONPATH", "")]))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _process(command: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while in the block, with all that it starts in its own session."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Returns once something listens.

    Raises:
      RuntimeError: if the process ends, or a minute is over.
    """
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("the SuperLink did not start; internal/flower/superlink.log says why.")


def main(config: FederatedRunConfig) -> None:
    """Runs with the parsed flags."""
    if absl_logging.get_verbosity() <= absl_logging.INFO:  # app.run's default, at which every library says what it does
        absl_logging.set_verbosity(absl_logging.ERROR)
    run(config)


def entry_point() -> None:
    """The command line; it does not return."""
    quiet_start()
    parser = flags_parser(FederatedRunConfig, (__doc__ or "").partition("\n")[0])
    app.run(main, flags_parser=parser)


if __name__ == "__main__":
    entry_point()
