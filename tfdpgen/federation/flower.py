"""Flower: carries tasks and sums between a server and sites; the only module that imports it.

    client = client_app(lambda config, spec: (name, site))          # a ClientApp: what a SuperNode runs
    sites = FlowerSites(grid, spec, num_users=90, num_sites=3)      # in a ServerApp's main, of its grid
    release = train("fedavg_gan", sites, budget)

Flower samples nobody, clips nothing, adds no noise and accounts for nothing here. Its own wrapper for central privacy
(`DifferentialPrivacyServerSideFixedClipping`) clips what a client sends, which is several users', samples a fixed
number of clients, knows no amplification by sampling, and stops where a reply is missing; so the session samples,
noises and accounts, by the code that does so in one process.

Messages hold arrays in NumPy's format, without pickled objects, and the task as JSON. Each round asks every site that
is there at its beginning, in one message each. Sites that were lost are called again, beside the rounds, and take part
once they answer: the same site started anew is known by its name.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import tfdpgen
from tfdpgen.data.dataset import DataSpec
from tfdpgen.federation.rounds import (
    Answer,
    FederationError,
    LostRoundError,
    Seat,
    check_agrees,
    dealt,
    opened,
    opened_sum,
    sealed,
    sealed_sum,
    seats_of,
    total_of,
)
from tfdpgen.privacy.accounts.identity import Identity
from tfdpgen.privacy.remote import RemoteUsers, SumOf

if TYPE_CHECKING:
    from tfdpgen.federation.site import Site
    from tfdpgen.federation.task import Task
    from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage

_POLL = 0.2  # seconds between two looks at what has arrived
_CALL_AGAIN = 5.0  # seconds after which a node that could not answer is called again
_LONGEST_REASON = 160  # characters of an error that a site sends
_CALL, _ROUND = "query", "train"  # Flower's names for kinds of messages
SiteOf = Callable[[Any, DataSpec], "tuple[str, Site]"]


def check_installed() -> None:
    """Raises an ImportError that says what to install where Flower is missing."""
    if importlib.util.find_spec("flwr") is None:
        raise ImportError(
            "Flower is not installed; install it with: pip install 'tfdpgen[federated]', or in a checkout pip install "
            "'.[federated]'. It holds packages at older versions than tfdpgen is tested with: use an environment of "
            "its own, as `make federated` does."
        )


def client_app(site_of: SiteOf) -> Any:
    """What a SuperNode runs: a `ClientApp` that answers calls and rounds.

    Args:
      site_of: Flower's context, public facts -> name of the site and its users.
    """
    check_installed()
    from flwr.app import Context, Message  # pyright: ignore[reportMissingImports]
    from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]

    app = ClientApp()

    @app.query()
    def call(message: Message, context: Context) -> Message:
        from tfdpgen.federation.task import Task

        task = Task.from_json(_config(message, "task"))
        name, site = site_of(context, task.spec)
        mechanism = task.mechanism
        answer = Answer(name, site.num_users, mechanism.num_weights, mechanism.clip_norm, tfdpgen.__version__)
        return _message({"answer": json.dumps(dataclasses.asdict(answer))}, {}, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        (users,) = _arrays(message, "sampled")
        sampled = opened(users)
        size = int(_config(message, "size"))
        if not sampled.size:  # nothing to start TensorFlow for
            return _message({}, {"sum": [sealed_sum(np.zeros(size))]}, reply_to=message)
        from tfdpgen.federation.task import Task

        task = Task.from_json(_config(message, "task"))
        _, site = site_of(context, task.spec)
        try:
            total = site.total(task, sampled, _arrays(message, "weights"), _arrays(message, "public"))
        except Exception as error:  # whose text may quote what is private, and is sent to the server
            raise RuntimeError(f"{type(error).__name__} in the training") from None
        return _message({}, {"sum": [sealed_sum(total)]}, reply_to=message)

    return app


def server_app(serve: Callable[[Any, Mapping[str, Any]], object]) -> Any:
    """What a SuperLink runs: a `ServerApp`.

    Args:
      serve: Flower's grid, the settings of the run -> anything; does all of it.
    """
    check_installed()
    from flwr.app import Context  # pyright: ignore[reportMissingImports]
    from flwr.serverapp import ServerApp  # pyright: ignore[reportMissingImports]

    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Context) -> None:
        _quiet()
        serve(grid, dict(context.run_config))

    return app


def simulate(server: Any, client: Any, *, num_sites: int, workers: int = 1) -> None:
    """Runs a `ServerApp` in this process, and sites in processes of Ray.

    A process that is killed is not replaced by Flower, which goes on giving it work: sites that it is to run are lost,
    or not there, now and then or until the end, and the run says so.

    Args:
      server: from `server_app`.
      client: from `client_app`; a site finds its number in `context.node_config["partition-id"]`.
      num_sites: SuperNodes that are simulated.
      workers: that train at a time.

    Raises:
      RuntimeError: if the engine fails; or whatever the server has raised.
    """
    check_installed()
    from flwr.simulation import run_simulation  # pyright: ignore[reportMissingImports]

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # what is lost, and why, the server says in a line
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=num_sites,
        backend_config={
            "client_resources": {"num_cpus": 1.0, "num_gpus": 0.0},
            "init_args": {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False},
        },
    )


class FlowerSites(RemoteUsers):
    """The users of sites that are reached through a Flower grid.

    Args:
      grid: of the ServerApp.
      spec: public facts of all examples.
      num_users: of all sites together; declared, and held against what sites say.
      num_sites: that have to answer before the training begins.
      round_seconds: after which a round is lost where a reply is missing. More than any site needs for all of its
        users: a round that is lost because many were sampled tells that they were.
      start_seconds: how long to wait for the sites at the beginning.
      examples: who the examples are to the ledger, where whoever starts the run has them, as in a simulation; None:
        the ledger's account is of the users of sites of these names.
      say: prints a line for the operator; None: nothing is said.

    Attributes:
      lost: (number of the round, what was wrong, by site) of every round that was lost.
      incomplete: how many rounds ran while some site was not there.
    """

    def __init__(
        self,
        grid: Any,
        spec: DataSpec,
        num_users: int,
        *,
        num_sites: int,
        round_seconds: float = 600.0,
        start_seconds: float = 600.0,
        examples: Identity | None = None,
        say: Callable[[str], object] | None = print,
    ) -> None:
        check_installed()
        for name, least in (("num_users", num_users), ("num_sites", num_sites), ("round_seconds", round_seconds)):
            if not least > 0:
                raise ValueError(f"`{name}` should be greater than 0; got {least!r}.")
        self.spec, self.num_users = spec, num_users
        self.lost: list[tuple[int, dict[str, str]]] = []
        self.incomplete = 0
        self._grid, self._num_sites, self._examples = grid, num_sites, examples
        self._round_seconds, self._start_seconds = round_seconds, start_seconds
        self._say = say or (lambda line: None)
        self._task: Task | None = None
        self._seats: dict[str, Seat] = {}
        self._absent: set[str] = set()
        self._refused: set[str] = set()  # sites whose sums are not what they should be, for the rest of the run
        self._called: dict[str, int] = {}  # nodes by the messages that called them and are not answered yet
        self._known: set[int] = set()  # nodes that were called
        self._again: dict[int, float] = {}  # when to call nodes again that could not answer

    def announce(self, method: Any) -> None:
        from tfdpgen.federation.task import Task

        self._task = task = Task.of(method, self.spec, self.num_users)
        self._say(f"Waiting for {self._num_sites} sites.")
        deadline, answers = time.monotonic() + self._start_seconds, {}
        while len(answers) < self._num_sites:
            for node, answer in self._call_new_nodes(strict=True):
                answers[node] = answer
                self._say(f"Site {answer.site}: {answer.num_users} users.")
            if time.monotonic() > deadline:
                raise FederationError(
                    f"`num_sites` is {self._num_sites}, and {len(answers)} have answered within "
                    f"{self._start_seconds:g} seconds: {', '.join(sorted(a.site for a in answers.values())) or 'none'}."
                )
            time.sleep(_POLL)
        self._seats = seats_of(answers, self.num_users, task.mechanism, tfdpgen.__version__)

    @property
    def account(self) -> Identity | str:
        sites = self._sites
        if self._examples is not None:
            return self._examples
        return "users of sites " + ", ".join(f"{name} ({sites[name].num_users})" for name in sorted(sites))

    @property
    def _sites(self) -> dict[str, Seat]:
        """The sites.

        Raises:
          FederationError: before they were called.
        """
        if not self._seats:
            raise FederationError("`announce` should be called before anything is asked of sites.")
        return self._seats

    def sums(self, mechanism: FederatedAverage, network: Any) -> SumOf:
        task, sites = self._task, self._sites
        assert task is not None  # where there are seats
        if dataclasses.replace(mechanism, noise_multiplier=None) != task.mechanism:
            raise FederationError(f"the plan's mechanism should be what sites were told, {task.mechanism}.")
        facts = {"task": task.to_json(), "size": str(mechanism.size)}
        rounds = 0

        def sum_of(sampled: npt.NDArray[np.int64], public: Sequence[Any]) -> npt.NDArray[np.float64] | None:
            nonlocal rounds
            rounds += 1
            self._welcome_back()
            present = {name: seat for name, seat in sites.items() if name not in self._absent}
            if not present:
                raise FederationError(f"no site is there any more in round {rounds}: {self._reasons()}")
            self.incomplete += len(present) < len(sites)
            asked = dealt(sampled, present)
            common = {"weights": network.get_weights(), "public": [np.asarray(value) for value in public]}
            messages = {
                name: _message(
                    facts,
                    {**common, "sampled": [sealed(users, present[name].num_users)]},
                    to=present[name].node,
                    kind=_ROUND,
                )
                for name, users in asked.items()
            }
            try:
                return total_of(asked, self._exchange(messages), mechanism)
            except LostRoundError as lost:
                self.lost.append((rounds, lost.sites))
                self._absent |= set(lost.sites)
                self._refused |= lost.wrong
                self._known -= {sites[name].node for name in lost.sites}  # to be called again
                self._say(f"\nRound {rounds} is lost: charged, and not applied ({lost}).")
                return None

        return sum_of

    def _reasons(self) -> str:
        """Why sites went away, the last time."""
        return "; ".join(f"round {number}, {reason}" for number, sites in self.lost[-1:] for reason in sites.values())

    def _exchange(self, messages: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64] | str]:
        """Sends a message to each site, and waits until all have replied, or the time is over.

        A reply counts for the message that it answers alone: what comes too late is of no round.
        """
        waiting = {identity: name for name, message in messages.items() for identity in self._push(message)}
        deadline = time.monotonic() + self._round_seconds
        replies: dict[str, npt.NDArray[np.float64] | str] = {}
        while waiting:
            for reply in self._pull(waiting):
                name = waiting.pop(reply.metadata.reply_to_message_id)
                replies[name] = _reason(reply) if reply.has_error() else _sum(reply)
            if waiting and time.monotonic() > deadline:
                return replies | dict.fromkeys(waiting.values(), f"no reply within {self._round_seconds:g} seconds")
            if waiting:
                time.sleep(_POLL)
        return replies

    def _welcome_back(self) -> None:
        """Calls sites that were lost, and nodes that are new; those that have answered meanwhile take part again.

        Who is there is decided before a round asks anything, and by nothing that anybody's examples decide.
        """
        assert self._task is not None  # announced
        for node, answer in self._call_new_nodes(strict=False):
            seat = self._seats.get(answer.site)
            if seat is None or answer.num_users != seat.num_users or answer.site in self._refused:
                self._say(f"\nNode {node} calls itself {answer.site!r}, and does not take part.")
                continue
            try:
                check_agrees(answer, self._task.mechanism, tfdpgen.__version__)
            except FederationError as error:
                self._say(f"\n{error}")
                continue
            self._seats[answer.site] = dataclasses.replace(seat, node=node)
            if answer.site in self._absent:
                self._absent.discard(answer.site)
                self._say(f"\nSite {answer.site} is there again.")

    def _call_new_nodes(self, *, strict: bool) -> Iterable[tuple[int, Answer]]:
        """Calls every node that was not called yet, or could not answer; gives the answers that have come.

        Raises:
          FederationError: if a node has answered with an error, and `strict`.
        """
        assert self._task is not None  # announced
        now = time.monotonic()
        self._known -= {node for node, then in self._again.items() if then < now}
        self._again = {node: then for node, then in self._again.items() if then >= now}
        for node in set(self._grid.get_node_ids()) - self._known:
            self._known.add(node)
            message = _message({"task": self._task.to_json()}, {}, to=node, kind=_CALL)
            self._called.update((identity, node) for identity in self._push(message))
        for reply in self._pull(self._called):
            node = self._called.pop(reply.metadata.reply_to_message_id)
            answer = _reason(reply) if reply.has_error() else _answer(reply)
            if isinstance(answer, Answer):
                yield node, answer
            elif strict:
                raise FederationError(f"a site cannot take part: {answer}")
            else:
                self._again[node] = now + _CALL_AGAIN

    def _push(self, message: Any) -> list[str]:
        """Sends one message; its identity, or nothing where Flower takes no message for that node."""
        return [identity for identity in self._grid.push_messages([message]) if identity]

    def _pull(self, waiting: Mapping[str, Any]) -> list[Any]:
        """The replies to these messages that have come."""
        replies = self._grid.pull_messages(list(waiting)) if waiting else []
        return [reply for reply in replies if reply.metadata.reply_to_message_id in waiting]


def _message(
    config: Mapping[str, str],
    arrays: Mapping[str, Sequence[npt.NDArray[Any]]],
    *,
    to: int | None = None,
    kind: str = "",
    reply_to: Any = None,
) -> Any:
    """A Flower message of texts and arrays, to a node or as the reply to another."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict  # pyright: ignore[reportMissingImports]

    records: dict[str, Any] = {"config": ConfigRecord(dict(config))}
    for name, values in arrays.items():
        records[name] = ArrayRecord({f"{i:04d}": Array(np.ascontiguousarray(value)) for i, value in enumerate(values)})
    content, address = RecordDict(records), {"dst_node_id": to, "message_type": kind}
    return Message(content, **({"reply_to": reply_to} if reply_to is not None else address))


def _config(message: Any, name: str) -> str:
    """A text of a message."""
    return str(message.content["config"][name])


def _arrays(message: Any, name: str) -> list[npt.NDArray[Any]]:
    """Arrays of a message, in their order; NumPy reads them without unpickling."""
    record = message.content[name]
    return [record[key].numpy() for key in sorted(record)]


def _sum(reply: Any) -> npt.NDArray[np.float64] | str:
    """What a site has sent, or that it is no array."""
    try:
        (total,) = _arrays(reply, "sum")
        return opened_sum(total)
    except (KeyError, TypeError, ValueError) as error:
        return f"sent no sum ({type(error).__name__})"


def _answer(reply: Any) -> Answer | str:
    """What a site says of itself, or that it says nothing of the kind."""
    try:
        return Answer(**json.loads(_config(reply, "answer")))
    except (KeyError, TypeError, ValueError) as error:
        return f"its answer cannot be read ({type(error).__name__})"


def _quiet() -> None:
    """Has AutoGraph's library warn nobody of its own ways; Flower shows what Python would hide."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="gast")


def _reason(reply: Any) -> str:
    """An error reply on one line, not too long."""
    text = " ".join(str(reply.error.reason or f"Flower's error {reply.error.code}").split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
