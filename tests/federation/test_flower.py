"""Messages over Flower: what is sent, what is lost, late or wrong, and who comes back."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.federation.small import (
    BUDGET,
    CLIP,
    METHOD,
    SITES,
    SPEC,
    TASK,
    USERS,
    Still,
    dataset,
    fakes,
    sites_of,
    started,
    total,
)
from tfdpgen.data import DataError
from tfdpgen.federation.flower import FlowerSites, client_app
from tfdpgen.federation.rounds import FederationError, opened_sum, sealed_sum
from tfdpgen.federation.site import Site
from tfdpgen.federation.task import Task
from tfdpgen.methods import train
from tfdpgen.privacy import Ledger, epsilon_of

pytest.importorskip("flwr", reason="Flower is not installed: `make federated` makes an environment with it")

_ROUND_SECONDS = 6.0


class Network:
    """Flower's own state and grid in this process, and nodes that answer messages by a real ClientApp.

    Nodes can be stopped, and answers changed on their way.
    """

    def __init__(self, sites: list[Site]) -> None:
        from flwr.server.superlink.linkstate import LinkStateFactory
        from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
        from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
        from flwr.supercore.object_store import ObjectStoreFactory
        from flwr.supercore.run import Run
        from flwr.supercore.task_identity import TaskIdentity
        from flwr.superlink.federation import NoOpFederationManager
        from flwr.superlink.grid import InMemoryGrid

        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self._state: Any = factory.state()
        self._run = Run.create_empty(run_id=7)
        self._run.primary_task_id, self._run.federation_id = 8, NOOP_FEDERATION_ID
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 8, 7, 1
        from flwr.proto.task_pb2 import Task as FlowerTask

        self._state.run_ids[7] = RunRecord(run=self._run)
        self._state.task_store[8] = FlowerTask(task_id=8, run_id=7)
        self.grid = InMemoryGrid(state_factory=factory)
        self.grid.set_run(self._run)
        self.messages: list[Any] = []
        self.replies: list[Any] = []
        self.change: Callable[[str, int, Any], Any] = lambda name, number, reply: reply
        self._stopped: set[int] = set()
        self._rounds: dict[str, int] = {}
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self.nodes = {f"site-{number}": self.start(f"site-{number}", site) for number, site in enumerate(sites)}

    def start(self, name: str, site: Site) -> int:
        """A node whose site has this name."""
        from flwr.common.constant import HEARTBEAT_INTERVAL_INF, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID

        node = self._state.create_node(
            NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, secrets.token_bytes(32), heartbeat_interval=HEARTBEAT_INTERVAL_INF
        )
        self._state.acknowledge_node_heartbeat(node_id=node, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
        self._threads.append(threading.Thread(target=self._answer, args=(node, name, site), daemon=True))
        self._threads[-1].start()
        return node

    def stop(self, name: str) -> None:
        """The site's node answers nothing any more."""
        self._stopped.add(self.nodes[name])

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _answer(self, node: int, name: str, site: Site) -> None:
        from flwr.app import Context, Error, Message, RecordDict

        app = client_app(lambda context, spec: (name, site))
        while not self._over.is_set():
            for message in self._state.get_message_ins(node_id=node, limit=1):
                if node in self._stopped:
                    continue
                self.messages.append(message)
                try:
                    reply = app(message, Context(7, node, {}, RecordDict(), {}))
                except Exception as error:
                    reply = Message(Error(code=1, reason=repr(error)), reply_to=message)
                if message.metadata.message_type == "train":
                    self._rounds[name] = self._rounds.get(name, 0) + 1
                    reply = self.change(name, self._rounds[name], reply)
                if reply is not None:
                    self.replies.append(reply)
                    reply.metadata.__dict__["_message_id"] = secrets.token_hex(8)
                    self._state.store_message_res(reply)
            time.sleep(0.02)


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(sites_of(dataset()))
    yield made
    made.close()


def _until(is_so: Callable[[], bool]) -> None:
    """Waits for it, ten seconds."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _sites(network: Network, **changes: Any) -> FlowerSites:
    arguments = {
        "num_users": USERS,
        "num_sites": SITES,
        "round_seconds": _ROUND_SECONDS,
        "start_seconds": 20.0,
        "say": None,
        **changes,
    }
    return FlowerSites(network.grid, SPEC, **arguments)


def _announced(network: Network, **changes: Any) -> tuple[FlowerSites, Any, Any]:
    """Sites, the network of the server and what asks for a round."""
    sites = _sites(network, **changes)
    sites.announce(METHOD)
    model = TASK.work().network
    model.set_weights(started())
    sum_of = sites.sums(METHOD.mechanism(SPEC, USERS), model)
    return sites, model, lambda *sampled: sum_of(np.array(sampled, np.int64), fakes())


def test_sums_are_those_of_the_plain_functions_and_messages_hold_nothing_else(network: Network) -> None:
    _, model, asked = _announced(network)
    plain = sites_of(dataset())
    for sampled in ([0, 5, 11], [], [7], list(range(USERS))):
        np.testing.assert_allclose(asked(*sampled), total(plain, sampled), atol=1e-6)
    model.set_weights([weight + 0.5 for weight in started()])
    changed = [weight + 0.5 for weight in started()]
    np.testing.assert_allclose(asked(3), total(plain, [3], weights=changed), atol=1e-6)
    rounds = [message for message in network.messages if message.metadata.message_type == "train"]
    assert len(rounds) == 5 * SITES  # every site is asked in every round
    for message in network.messages:
        assert set(message.content) <= {"config", "weights", "public", "sampled"}
        assert json.loads(message.content["config"]["task"]) == json.loads(TASK.to_json())
    replies = [reply for reply in network.replies if reply.metadata.message_type == "train"]
    assert len(replies) == len(rounds)
    for reply in replies:
        assert set(reply.content) == {"config", "sum"}
        (array,) = reply.content["sum"].values()
        assert array.stype == "numpy.ndarray"
        assert opened_sum(array.numpy()).shape == (TASK.mechanism.size,)
        assert not reply.content["config"]


def test_a_training_over_flower_is_charged_like_one_in_a_process(network: Network, tmp_path: Path) -> None:
    ledger, sites = Ledger(tmp_path / "ledger.sqlite"), _sites(network)
    release = train(METHOD, sites, BUDGET, ledger=ledger, verbose=0)
    here = train(METHOD, dataset(), BUDGET, verbose=0)
    assert release.event == here.event
    assert release.statement.epsilon == here.statement.epsilon
    assert release.is_releasable
    assert str(sites.account).startswith("users of sites site-0 (")
    assert ledger.spent(sites.account, BUDGET.delta, "user") == pytest.approx(
        epsilon_of(release.event, BUDGET.delta), rel=1e-3
    )
    assert sites.lost == []
    assert sites.incomplete == 0


def test_where_the_examples_are_known_they_are_charged(network: Network, tmp_path: Path) -> None:
    """As in a simulation: the account is that of the same training in one process."""
    ledger, data = Ledger(tmp_path / "ledger.sqlite"), dataset()
    train(METHOD, _sites(network, examples=ledger.identity(data)), BUDGET, ledger=ledger, verbose=0)
    spent = ledger.spent(data, BUDGET.delta)
    train(METHOD, data, BUDGET, ledger=Ledger(tmp_path / "other.sqlite"), verbose=0)
    assert spent == Ledger(tmp_path / "other.sqlite").spent(data, BUDGET.delta)


def _with(array: Any) -> Any:
    def changed(reply: Any) -> Any:
        from flwr.app import Array, ArrayRecord

        reply.content["sum"] = ArrayRecord({"0000": Array(sealed_sum(array))})
        return reply

    return changed


@pytest.mark.parametrize(
    ("change", "reason", "is_out"),
    [
        (lambda reply: None, "no reply within 6 seconds", False),
        (_with(np.full(TASK.mechanism.size, np.nan)), "not finite", True),
        (_with(np.zeros(3)), "in place of float64", True),
        (_with(np.full(TASK.mechanism.size, CLIP)), "a sum longer than", True),
    ],
)
def test_a_round_that_a_site_fails_is_lost_whole(network: Network, change: Any, reason: str, is_out: bool) -> None:
    lines: list[str] = []
    sites, _, asked = _announced(network, say=lines.append)
    network.change = lambda name, number, reply: change(reply) if (name, number) == ("site-1", 2) else reply
    whole = asked(0, 5)
    assert whole is not None
    assert asked(0, 5, 9) is None
    ((number, reasons),) = sites.lost
    assert number == 2
    assert set(reasons) == {"site-1"}
    assert reason in reasons["site-1"]
    np.testing.assert_allclose(asked(0), total(sites_of(dataset()), [0]), atol=1e-6)  # others go on
    _until(lambda: asked() is not None and any("site-1 is there again" in line for line in lines) is not is_out)
    found = asked(0, 5)
    np.testing.assert_allclose(found, total(sites_of(dataset()), [0] if is_out else [0, 5]), atol=1e-6)
    assert len(sites.lost) == 1
    assert sites.incomplete >= 1


def test_an_error_reply_and_a_late_one_are_lost_rounds_and_count_in_no_later_one(network: Network) -> None:
    sites, _, asked = _announced(network, round_seconds=2.0)
    kept: list[Any] = []

    def late(name: str, number: int, reply: Any) -> Any:
        if (name, number) == ("site-1", 1):
            threading.Timer(3.0, lambda: network._state.store_message_res(kept[0])).start()
            reply.metadata.__dict__["_message_id"] = secrets.token_hex(8)
            kept.append(reply)
            return None
        return reply

    network.change = late
    assert asked(4) is None
    time.sleep(2.0)  # meanwhile it arrives
    assert kept
    found = asked(0)
    np.testing.assert_allclose(found, total(sites_of(dataset()), [0]), atol=1e-6)
    assert len(sites.lost) == 1


def test_a_site_whose_training_fails_says_so(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, _, asked = _announced(network)

    def failing(*_: Any) -> Any:
        raise MemoryError("no room for features of a private image")

    monkeypatch.setattr(Site, "total", failing)
    assert asked(5) is None
    assert "MemoryError in the training" in sites.lost[0][1]["site-1"]
    assert "of a private image" not in sites.lost[0][1]["site-1"]  # what an error says may quote them
    monkeypatch.undo()
    assert set(sites.lost[0][1]) == {"site-1"}  # others were asked for nobody


def test_a_site_that_is_killed_and_started_again_takes_part_again(network: Network) -> None:
    lines: list[str] = []
    sites, _, asked = _announced(network, say=lines.append)
    network.stop("site-2")
    assert asked(9, 0) is None
    np.testing.assert_allclose(asked(9, 0), total(sites_of(dataset()), [0]), atol=1e-6)
    network.nodes["site-2"] = network.start("site-2", sites_of(dataset())[2])
    _until(lambda: asked() is not None and any("site-2 is there again" in line for line in lines))
    np.testing.assert_allclose(asked(9, 0), total(sites_of(dataset()), [9, 0]), atol=1e-6)
    assert len(sites.lost) == 1
    network.start("site-2", Site(dataset(users=3), Still))  # with other users
    network.start("stranger", sites_of(dataset())[0])
    _until(lambda: asked() is not None and sum("does not take part" in line for line in lines) == 2)
    np.testing.assert_allclose(asked(9, 0), total(sites_of(dataset()), [9, 0]), atol=1e-6)


def test_without_any_site_there_is_no_training(network: Network) -> None:
    _, _, asked = _announced(network, round_seconds=1.0)
    for name in list(network.nodes):
        network.stop(name)
    assert asked(0) is None
    with pytest.raises(FederationError, match="no site is there any more in round 2: round 1, no reply"):
        asked(0)


def test_what_is_not_as_declared_is_refused_before_anything_is_spent(network: Network, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    sites = _sites(network, num_users=USERS + 1)
    with pytest.raises(FederationError, match=f"`num_users` should be {USERS}, as many as the sites have together"):
        train(METHOD, sites, BUDGET, ledger=ledger, verbose=0)
    with pytest.raises(FederationError, match="3 have answered within 2 seconds: site-0, site-1, site-2"):
        train(METHOD, _sites(network, num_sites=4, start_seconds=2.0), BUDGET, ledger=ledger, verbose=0)
    with pytest.raises(ValueError, match=r"`num_sites` should be greater than 0"):
        _sites(network, num_sites=0)
    with pytest.raises(FederationError, match="announce"):
        _ = _sites(network).account
    assert not ledger.reservations()


def test_a_site_whose_data_contradict_the_facts_is_refused_before_anything_is_spent(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contradicted(text: str) -> Any:
        raise DataError("labels should be below 2")

    monkeypatch.setattr(Task, "from_json", contradicted)
    with pytest.raises(FederationError, match=r"a site cannot take part: .*labels should be below 2"):
        _sites(network).announce(METHOD)
