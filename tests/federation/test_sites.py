"""What sites send, and what a server makes of it: sums of users' updates, each clipped as a whole, without noise."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from tests.federation.small import (
    CLIP,
    METHOD,
    SITES,
    SPEC,
    TASK,
    USERS,
    Still,
    answer,
    dataset,
    fakes,
    seats,
    sites_of,
    started,
    total,
)
from tfdpgen.data import DataError, LabeledDataset
from tfdpgen.federation.rounds import (
    FederationError,
    LostRoundError,
    dealt,
    opened,
    opened_sum,
    sealed,
    sealed_sum,
    seats_of,
    total_of,
)
from tfdpgen.federation.site import Site, read_site
from tfdpgen.federation.task import Task
from tfdpgen.privacy.ensemble import group_sums

_SIZE = TASK.mechanism.size


def test_a_site_builds_from_a_task_what_the_server_runs() -> None:
    found = Task.from_json(TASK.to_json())
    assert found == TASK
    assert found.mechanism == METHOD.mechanism(SPEC, USERS) == METHOD.plan(SPEC, USERS, None).mechanisms["rounds"]
    assert json.loads(TASK.to_json())["settings"] == dataclasses.asdict(METHOD)
    with pytest.raises(ValueError, match="can be trained at sites, as fedavg_gan; got gs_wgan"):
        Task("gs_wgan", {}, SPEC, 3)
    with pytest.raises(ValueError, match=r"should be one of .*fedavg_gan"):
        Task.from_json(TASK.to_json().replace("fedavg_gan", "fedavg"))
    with pytest.raises(ValueError, match="got clip"):
        Task("fedavg_gan", {"clip": 3}, SPEC, 3)
    with pytest.raises(ValueError, match=r"`rounds` should be greater than 0"):
        Task("fedavg_gan", {"rounds": 0}, SPEC, 3)
    with pytest.raises(ValueError, match=r"should be what `Task\.to_json` writes"):
        Task.from_json("{}")


def test_sites_together_send_what_one_process_would_sum() -> None:
    """For users at the front, in the middle and at the end, of all sites or one, of none."""
    data, work = dataset(), TASK.work()
    work.network.set_weights(started())
    sum_of = group_sums(
        TASK.mechanism,
        work.network,
        work.loss_fn,
        lambda *_: np.zeros(0, np.float32),
        work.public,
        work.learning,
        work.transform,
        data,
        np.asarray(data.user_ids),
        Still(),
    )
    sites = sites_of(data)
    for sampled in ([0, 5, 11], [4, 5, 6, 7], [9], [], list(range(USERS))):
        found = total(sites, sampled)
        np.testing.assert_allclose(found, sum_of(np.array(sampled, np.int64), fakes()), atol=1e-6)
        assert (np.linalg.norm(found) > 0) == bool(sampled)


def test_a_user_is_clipped_as_a_whole_and_neither_a_site_nor_an_image() -> None:
    for images_per_user in (1, 3, 30):
        site = sites_of(dataset(images_per_user=images_per_user))[0]
        alone = [site.total(TASK, [user], started(), fakes()) for user in range(site.num_users)]
        norms = np.linalg.norm(alone, axis=1)
        assert np.all(norms <= CLIP * (1 + 1e-6))
        assert np.all(norms > 0.9 * CLIP)  # updates are longer than the clip norm, whatever number of images
        together = site.total(TASK, [0, 1, 2], started(), fakes())
        np.testing.assert_allclose(together, np.sum(alone[:3], axis=0), atol=1e-6)
        assert np.linalg.norm(together) > 1.5 * CLIP


@pytest.mark.parametrize(
    "place", [pytest.param(0, marks=pytest.mark.slow), 6, pytest.param(USERS, marks=pytest.mark.slow)]
)
def test_one_user_more_or_fewer_moves_a_round_by_at_most_one_clip(place: int) -> None:
    """A user who is really there or not, with few images or many, at any site."""
    data, before = dataset(), total(sites_of(dataset()), np.arange(USERS))
    owner, rng = np.asarray(data.user_ids), np.random.default_rng(4)
    for images in (1, 40):
        others = np.where(owner >= place, owner + 1, owner)
        at = int(np.searchsorted(others, place))
        more = LabeledDataset(
            np.insert(data.images, [at] * images, rng.integers(256, size=(images, 8, 8, 1)), axis=0),
            np.insert(data.labels, [at] * images, 1),
            SPEC,
            np.insert(others, [at] * images, place),
        )
        task = Task.of(METHOD, SPEC, USERS + 1)
        moved = np.linalg.norm(total(sites_of(more), np.arange(USERS + 1), task) - before)
        assert 0.5 * CLIP < moved <= CLIP * (1 + 1e-6)
    fewer = data.take(np.flatnonzero(owner != min(place, USERS - 1)))
    task = Task.of(METHOD, SPEC, USERS - 1)
    moved = np.linalg.norm(total(sites_of(fewer), np.arange(USERS - 1), task) - before)
    assert 0.5 * CLIP < moved <= CLIP * (1 + 1e-6)


def test_what_a_site_sends_is_no_noise_and_its_draws_are_its_own() -> None:
    """The same users and draws give the same sum; without a seed draws differ, and the bound holds all the same."""
    data = dataset()
    once, again = (sites_of(data)[1].total(TASK, [0, 3], started(), fakes()) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    secret = [Site(data).total(TASK, [0], started(), fakes()) for _ in range(2)]
    assert not np.array_equal(*secret)
    assert max(np.linalg.norm(secret, axis=1)) <= CLIP * (1 + 1e-6)


def test_a_site_trains_from_the_weights_of_the_round() -> None:
    site = sites_of(dataset())[0]
    first = site.total(TASK, [0], started(), fakes())
    other = site.total(TASK, [0], [weight + 1 for weight in started()], fakes())
    assert np.abs(first - other).max() > 1e-4
    np.testing.assert_array_equal(site.total(TASK, [0], started(), fakes()), first)


def test_a_site_refuses_to_count_a_user_twice_and_users_that_it_has_not() -> None:
    site = sites_of(dataset())[0]
    with pytest.raises(ValueError, match="each user once"):
        site.total(TASK, [1, 1], started(), fakes())
    for wrong in ([4], [-1]):
        with pytest.raises(ValueError, match="users from 0 to 3"):
            site.total(TASK, wrong, started(), fakes())
    with pytest.raises(ValueError, match="should have the shapes of the task"):
        site.total(TASK, [1], started(), [fakes()[0][:3], fakes()[1]])
    anonymous = LabeledDataset(dataset().images, dataset().labels, SPEC)
    with pytest.raises(DataError, match="whose its examples are"):
        Site(anonymous)


def test_a_file_of_a_site_is_held_against_the_declared_facts(tmp_path: Any) -> None:
    data, path = dataset(), tmp_path / "site.npz"
    np.savez(path, images=data.images, labels=data.labels, user_ids=np.asarray(data.user_ids))
    assert Site(read_site(path, SPEC)).num_users == USERS
    np.savez(path, images=data.images, labels=data.labels)
    with pytest.raises(DataError, match="user_ids with a number for each image"):
        read_site(path, SPEC)
    np.savez(path, images=data.images, labels=data.labels + 1, user_ids=np.asarray(data.user_ids))
    with pytest.raises(DataError):
        read_site(path, SPEC)


def test_a_message_hides_who_is_sampled_from_whoever_sees_its_length_or_guesses_its_digest() -> None:
    """Flower stores arrays by their digests, and gives them to any node that names one."""
    samples = [np.array([], np.int64), np.array([3]), np.arange(30)]
    for users in samples:
        messages = [sealed(users, 30) for _ in range(2)]
        np.testing.assert_array_equal(opened(messages[0]), users)
        assert messages[0].tobytes() != messages[1].tobytes()
    assert len({sealed(users, 30).nbytes for users in samples}) == 1
    sums = [sealed_sum(np.zeros(7)) for _ in range(2)]
    np.testing.assert_array_equal(opened_sum(sums[0]), np.zeros(7))
    assert sums[0].tobytes() != sums[1].tobytes()
    assert opened_sum(np.array(1.0)).shape != (7,)


def test_every_site_is_asked_whoever_was_sampled() -> None:
    at = seats(sites_of(dataset()))
    asked = dealt(np.array([1, 4, 7]), at)
    assert {name: list(users) for name, users in asked.items()} == {"site-0": [1], "site-1": [0, 3], "site-2": []}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "no reply"),
        ("<class 'MemoryError'>", "MemoryError"),
        (np.zeros(_SIZE - 1), "in place of float64"),
        (np.zeros(_SIZE, np.float32), "sent float32"),
        (np.full(_SIZE, np.nan), "not finite"),
        (np.full(_SIZE, 2.01 * CLIP / _SIZE**0.5), "longer than its users' clipped updates"),
    ],
)
def test_a_round_is_used_whole_or_not_at_all(reply: Any, reason: str) -> None:
    whole = np.full(_SIZE, CLIP / _SIZE**0.5)
    asked = {"one": np.array([0]), "two": np.array([3, 5]), "three": np.array([], np.int64)}
    replies: dict[str, Any] = {"one": whole, "two": 2 * whole, "three": 0 * whole}
    np.testing.assert_allclose(total_of(asked, replies, TASK.mechanism), 3 * whole)
    with pytest.raises(LostRoundError, match=reason) as caught:
        total_of(
            asked,
            {**replies, "two": reply} if reply is not None else {"one": whole, "three": 0 * whole},
            TASK.mechanism,
        )
    assert set(caught.value.sites) == {"two"}
    assert caught.value.wrong == (set() if reply is None or isinstance(reply, str) else {"two"})
    with pytest.raises(LostRoundError, match="three: sent a sum longer than"):
        total_of(asked, {**replies, "three": 0.01 * whole}, TASK.mechanism)


def test_sites_that_are_not_as_declared_are_refused() -> None:
    answers = {7: answer("b", 3), 5: answer("a", 2)}
    found = seats_of(answers, 5, TASK.mechanism, "1")
    assert [(seat.name, seat.node, seat.first) for seat in found.values()] == [("a", 5, 0), ("b", 7, 2)]
    with pytest.raises(FederationError, match=r"`num_users` should be 5, .*\(a: 2, b: 3\); got 6"):
        seats_of(answers, 6, TASK.mechanism, "1")
    with pytest.raises(FederationError, match="two sites are called 'a'"):
        seats_of({1: answer("a", 2), 2: answer("a", 3)}, 5, TASK.mechanism, "1")
    with pytest.raises(FederationError, match="at least one user"):
        seats_of({1: answer("a", 0)}, 0, TASK.mechanism, "1")
    with pytest.raises(FederationError, match=r"a norm of at most 0\.1; here it is 2"):
        seats_of(answers, 5, TASK.mechanism, "2")
    for changed in ({"clip_norm": 0.3}, {"num_weights": 5}):
        with pytest.raises(FederationError, match="Install the same version"):
            seats_of({1: dataclasses.replace(answer("a", 5), **changed)}, 5, TASK.mechanism, "1")
    assert len(seats(sites_of(dataset()))) == SITES
