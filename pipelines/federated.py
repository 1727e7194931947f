"""What runs on Flower: the server, which trains and writes the release, and the sites.

    SITES, SERVER = apps()                    # a ClientApp and a ServerApp; pipelines/flower_app/ names them

The server has no example. It takes its settings from the run (`flwr run pipelines/flower_app -c "num_users=90 ..."`),
where they have the names and defaults of `FederationConfig`. A site reads its file from the SuperNode's own settings
(`--node-config 'site="clinic" examples="/data/clinic.npz"'`), which the server cannot choose.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import default_ledger
from tfdpgen.choices import check_budget, check_delta, check_method
from tfdpgen.federation.flower import FlowerSites, client_app, server_app

if TYPE_CHECKING:
    from tfdpgen.data import DataSpec
    from tfdpgen.federation.site import Site

RELEASE = "release"  # in the folder of results: a TrainedRelease
OUTCOME = "federation.json"  # in internal/: what became of the rounds
README = """\
This folder is internal. It holds the progress of a training and, after federated_run.py, the sites' private examples
and who they are. Do not publish it. What may leave is in ../release.
"""
ERROR = "federation_error.txt"  # in internal/: why there is no release


@dataclasses.dataclass(frozen=True)
class FederationConfig:
    """Settings of a server.

    Raises:
      ValueError: if a field lies outside its range; the message names it.
    """

    num_users: int = 0
    """Users of all sites together; public. The budget protects each of them."""

    num_sites: int = 2
    """Sites that have to be there before the training begins."""

    method: str = "fedavg_gan"
    """The method."""

    settings: str = ""
    """Settings of the method as JSON, as in {"rounds": 300}; the rest as it chooses them for so many users."""

    image_shape: str = "28,28,1"
    """height,width,channels of all sites' images; public."""

    num_classes: int = 10
    """Number of classes; public."""

    value_range: str = "0,255"
    """lowest,highest value that a pixel can have."""

    classes: str = ""
    """Names of the classes in the order of their labels, with commas between. Published."""

    epsilon: float = 3.0
    """Privacy budget of each user."""

    delta: float = 1e-5
    """Privacy budget: has to be smaller than 1 / num_users."""

    output_dir: str = "output"
    """Folder that receives release/ and, in internal/, the backup."""

    seed: int = 0
    """Seed of initial weights and fakes; never of noise, samples or anything at a site."""

    round_seconds: float = 600.0
    """After which a round is lost where a site has not replied. More than any site needs for all of its users."""

    start_seconds: float = 600.0
    """How long to wait for the sites at the beginning."""

    ledger: str = ""
    """The server's ledger: a file, or a database address. Empty: the one of this user account."""

    total_epsilon: float = 10.0
    """What every user may cost in all runs together, where the ledger does not know them yet."""

    account: str = ""
    """What a ledger calls the account of these users. Empty: it is named after the sites."""

    identity: str = ""
    """File that says who all examples are to the ledger, where whoever starts the run has them. Internal."""

    def __post_init__(self) -> None:
        for name, least in (("num_users", 1), ("num_sites", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` should be at least {least}; got {getattr(self, name)}.")
        for name in ("round_seconds", "start_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` should be greater than 0; got {getattr(self, name)!r}.")
        check_method(self.method)
        check_budget(self.epsilon, self.delta)
        check_delta(self.delta, self.num_users, "user")
        _ = self.method_settings

    @property
    def method_settings(self) -> dict[str, Any]:
        """The settings that are given.

        Raises:
          ValueError: if they are no JSON object.
        """
        try:
            given = json.loads(self.settings or "{}")
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise ValueError(f'`settings` should be JSON, as in {{"rounds": 300}}; got {self.settings!r}.')
        return given

    @property
    def spec(self) -> DataSpec:
        """The public facts of the examples."""
        from components.ingest import declared
        from tfdpgen.data import DataSpec

        facts: Any = declared(self.image_shape, self.num_classes, self.value_range, self.classes)
        if not (facts.image_shape and facts.num_classes and facts.value_range):
            raise ValueError(
                "`image_shape`, `num_classes` and `value_range` should be given: no example is here to ask."
            )
        return DataSpec(facts.image_shape, facts.num_classes, facts.value_range, facts.classes)

    def chosen(self) -> Any:
        """The method with its settings.

        Raises:
          ValueError: for a method that there is not, or cannot be trained at sites, or settings that it refuses.
        """
        from tfdpgen.federation.task import Task
        from tfdpgen.methods import method_class

        given = self.method_settings
        suited = method_class(self.method).for_data(self.spec, self.num_users)
        known = {field.name for field in dataclasses.fields(suited)}
        if unknown := sorted(set(given) - known):
            raise ValueError(f"`settings` should be of {', '.join(sorted(known))}; got {unknown[0]}.")
        return Task.of(dataclasses.replace(suited, **given), self.spec, self.num_users).chosen


def serve(grid: Any, config: FederationConfig) -> None:
    """Trains with the sites behind a Flower grid and writes the release, its outcome, or why there is none.

    Args:
      grid: of a ServerApp.
      config: the settings.
    """
    from components.artifacts import TrainedRelease
    from components.component import one_line, run_note, staged
    from components.train import confirm
    from tfdpgen.methods import train
    from tfdpgen.privacy import Backup, Identity, Ledger, PrivacyBudget

    folder = Path(config.output_dir).expanduser().absolute()
    internal = folder / "internal"
    open_internal(internal)
    for name in (OUTCOME, ERROR):
        (internal / name).unlink(missing_ok=True)
    began = time.monotonic()
    try:
        method = config.chosen()
        sites = FlowerSites(
            grid,
            config.spec,
            config.num_users,
            num_sites=config.num_sites,
            round_seconds=config.round_seconds,
            start_seconds=config.start_seconds,
            examples=Identity.load(config.identity) if config.identity else None,
            say=_say,
        )
        with contextlib.ExitStack() as stack:
            backup = stack.enter_context(Backup(internal / "backup"))  # until the release has its name
            part = stack.enter_context(staged(folder / RELEASE))
            ledger = Ledger(
                config.ledger or default_ledger(),
                total_epsilon=config.total_epsilon,
                say=_say,
                account=config.account,
                note=run_note("", folder),
            )
            release = train(
                method,
                sites,
                PrivacyBudget(config.epsilon, config.delta),
                seed=config.seed,
                ledger=ledger,
                backup=backup,
            )
            if backup.reservation is not None:
                confirm(ledger, backup.reservation)
            release.save(part)
            settings = dataclasses.asdict(config)
            seconds, facts = round(time.monotonic() - began, 3), {"training": uuid.uuid4().hex}
            facts |= {"privacy": release.statement.summary()}
            TrainedRelease(part, "federated", seconds, facts=facts, parameters=settings).seal()
    except Exception as error:
        _write(internal / ERROR, one_line(error))
        raise
    outcome = {
        "rounds": method.rounds,
        "lost": [{"round": number, "sites": reasons} for number, reasons in sites.lost],
        "rounds_without_some_site": sites.incomplete,
        "epsilon": release.statement.epsilon,
        "delta": release.statement.delta,
        "num_users": release.statement.num_examples,
    }
    _write(internal / OUTCOME, json.dumps(outcome, indent=2) + "\n")
    print(describe(outcome, folder), flush=True)


def open_internal(folder: Path) -> None:
    """Makes the folder of what may never leave, for its owner alone, and says so in it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "README").write_text(README)


def describe(outcome: dict[str, Any], folder: Path) -> str:
    """The outcome in a few lines."""
    lost = len(outcome["lost"])
    return "\n".join(
        [
            "",
            f"Release: {folder / RELEASE}",
            f"Privacy: epsilon {outcome['epsilon']:.3f} at delta {outcome['delta']:g} for each of "
            f"{outcome['num_users']} users",
            f"Rounds: {outcome['rounds']} charged, of which {lost} lost and not applied; "
            f"{outcome['rounds_without_some_site']} ran without some site",
        ]
    )


def apps() -> tuple[Any, Any]:
    """A ClientApp and a ServerApp, for SuperNodes and a SuperLink.

    Raises:
      ImportError: if Flower is not installed.
    """
    return client_app(_site_of_node), server_app(lambda grid, settings: serve(grid, FederationConfig(**settings)))


def _site_of_node(context: Any, spec: DataSpec) -> tuple[str, Site]:
    """The site that a SuperNode's settings name."""
    settings = dict(context.node_config)
    for name, example in (("site", "clinic"), ("examples", "/data/clinic.npz")):
        if not settings.get(name):
            raise ValueError(f'--node-config of this SuperNode should say {name}, as in {name}="{example}".')
    return str(settings["site"]), site_in(str(settings["examples"]), spec)


@functools.lru_cache(maxsize=64)
def site_in(path: str, spec: DataSpec) -> Site:
    """The users of a file, read once in a process."""
    from tfdpgen.federation.site import Site, read_site

    return Site(read_site(path, spec))


def _say(line: str) -> None:
    """Prints it at once."""
    print(line, flush=True)


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
