"""Every membership attack wins where it must and finds nothing where there is nothing."""

from __future__ import annotations

import numpy as np

from tests.attacks.controls import Noise, Replay, noise_examples, overfitted_autoencoder, overfitted_critic
from tfdpgen.attacks import ATTACKS, privacy_loss_upper_bound, run_attacks
from tfdpgen.attacks.upper_bounds import upper_bounds_of
from tfdpgen.data import load_splits
from tfdpgen.methods import train
from tfdpgen.privacy import PrivacyBudget

SPLITS = load_splits("digits")
MEMBERS = SPLITS.train.take(np.arange(100))
OTHERS = SPLITS.train.take(np.arange(100, 700))
SEARCHES = ("domias", "gan_leaks", "gan_leaks_calibrated", "monte_carlo")
OF_CRITICS = ("logan", "critic_gradient", "critic_neighbours")
OF_NETWORKS = (*OF_CRITICS, "vae_reconstruction", "vae_elbo")


def test_no_membership_attack_is_left_out_here() -> None:
    assert {name for name, attack in ATTACKS.items() if attack.is_membership} == {
        "classifier_holdout", *SEARCHES, *OF_NETWORKS,
    }  # fmt: skip


def test_replayed_examples_are_found() -> None:
    results = run_attacks(Replay(MEMBERS), MEMBERS, SPLITS.holdout, repetitions=2, seed=0, names=SEARCHES)
    least = {"domias": 0.75, "gan_leaks": 0.99, "gan_leaks_calibrated": 0.95, "monte_carlo": 0.65}
    assert {name: result.auc for name, result in results.items() if result.auc < least[name]} == {}
    assert results["gan_leaks"].tpr_at_1_percent_fpr > 0.95
    for result in results.values():
        assert result.auc_interval[0] > 0.5
        assert result.privacy_loss_interval[0] > 0


def test_examples_of_another_release_are_not_found() -> None:
    results = run_attacks(
        Replay(OTHERS), MEMBERS, SPLITS.holdout, repetitions=2, seed=0, names=[*SEARCHES, "classifier_holdout"]
    )
    for result in results.values():
        assert result.auc_interval[0] < 0.5 < result.auc_interval[1]
        assert result.tpr_at_1_percent_fpr_interval[0] <= 0.01


def test_networks_that_learnt_examples_by_heart_give_them_away_and_no_others() -> None:
    networks = overfitted_autoencoder(MEMBERS) | overfitted_critic(MEMBERS, OTHERS)
    arguments = {"networks": networks, "repetitions": 1, "seed": 0, "names": OF_NETWORKS}
    for result in run_attacks(Noise(SPLITS.spec), MEMBERS, SPLITS.holdout, **arguments).values():
        assert result.auc > 0.8
        assert result.privacy_loss_interval[0] > 0.2
    strangers = SPLITS.train.take(np.arange(700, len(SPLITS.train)))
    for result in run_attacks(Noise(SPLITS.spec), strangers, SPLITS.holdout, **arguments).values():
        assert result.auc_interval[0] < 0.5 < result.auc_interval[1]


def test_the_classifier_knows_digits_from_noise_but_not_from_digits() -> None:
    names = ["classifier_noise", "classifier_holdout"]
    results = run_attacks(Replay(SPLITS.train), SPLITS.train, SPLITS.holdout, repetitions=2, seed=0, names=names)
    noise, holdout = results["classifier_noise"], results["classifier_holdout"]
    assert noise.accuracy >= 0.99
    assert noise.auc >= 0.99
    assert noise.privacy_loss > privacy_loss_upper_bound(3.0, 1e-5)  # what no upper bound on membership forbids
    assert not noise.is_membership
    assert holdout.is_membership
    assert holdout.auc_interval[0] < 0.5 < holdout.auc_interval[1]


def test_the_classifier_learns_few_examples_by_heart() -> None:
    # Members and others are noise: only who has seen an example can tell it from fresh noise.
    members = noise_examples(20, seed=0, side=8)
    result = run_attacks(
        Replay(members), members, noise_examples(60, 1, side=8), repetitions=2, seed=0, names=["classifier_holdout"]
    )["classifier_holdout"]
    assert result.auc > 0.9


def test_pure_noise_teaches_a_classifier_nothing() -> None:
    names = ["classifier_noise", "classifier_holdout"]
    results = run_attacks(Noise(SPLITS.spec), SPLITS.train, SPLITS.holdout, repetitions=2, seed=0, names=names)
    for result in results.values():
        assert abs(result.privacy_loss) <= 0.02
        assert abs(result.auc - 0.5) <= 0.02


def test_at_epsilon_1_no_attack_exceeds_its_upper_bound() -> None:
    release = train("gaussian_mixture", SPLITS.train, PrivacyBudget(1.0, 1e-5), verbose=0)
    # One repetition: Student's interval over two would reach below any upper bound.
    results = run_attacks(release, SPLITS.train, SPLITS.holdout, repetitions=1, seed=0)
    allowed = upper_bounds_of(release.statement.epsilon, release.statement.delta)["add_or_remove"]
    for result in results.values():
        if result.is_membership:
            assert result.privacy_loss_interval[0] <= allowed["privacy_loss"]
            assert result.privacy_loss <= allowed["privacy_loss"]
            assert result.auc <= allowed["auc"]
            assert result.tpr_at_1_percent_fpr_interval[0] <= allowed["tpr_at_1_percent_fpr"]


def test_a_critic_without_labels_gives_its_examples_away_by_its_parts() -> None:
    networks = overfitted_critic(MEMBERS, OTHERS, parts=4)
    results = run_attacks(
        Noise(SPLITS.spec), MEMBERS, SPLITS.holdout, networks=networks, repetitions=1, seed=0, names=OF_CRITICS
    )
    assert {name: result.auc for name, result in results.items() if result.auc <= 0.8} == {}
