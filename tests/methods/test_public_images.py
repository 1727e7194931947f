"""What a training learns from public images: the statement says so, and what does not suit costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfdpgen.data import DataSpec, LabeledDataset, PublicImages, load_public_images
from tfdpgen.features.autoencoder import Autoencoder
from tfdpgen.methods import DPGAN, LatentGaussian, train
from tfdpgen.privacy import Backup, BackupError, Ledger, PrivacyBudget

_SPEC = DataSpec((16, 16, 3), 2)
_BUDGET = PrivacyBudget(3.0, 1e-4)
_SMALL = LatentGaussian(4, filters=2, public_steps=3)


@pytest.fixture(scope="module")
def examples() -> LabeledDataset:
    images = np.random.default_rng(0).integers(256, size=(60, 16, 16, 3), dtype=np.uint8)
    return LabeledDataset(images, np.arange(60) % 2, _SPEC)


def _public(value: int, source: str = "plain images") -> PublicImages:
    return PublicImages(source, (16, 16, 3), lambda: np.full((50, 16, 16, 3), value, np.uint8))


@pytest.mark.parametrize(
    "settings",
    [
        LatentGaussian(4, filters=4, public_steps=100),
        DPGAN(4, generator_filters=8, critic_filters=4, expected_batch_size=8, steps=1, num_fakes=32, public_steps=300),
    ],
    ids=["latent_gaussian", "dp_gan"],
)
def test_it_learns_from_those_that_are_given_and_says_so(
    settings: LatentGaussian | DPGAN, examples: LabeledDataset
) -> None:
    """Whatever the private images show, samples are like the public ones."""
    brightness = {}
    for value in (20, 230):
        release = train(settings, examples, _BUDGET, verbose=0, public_images=_public(value, f"images of {value}"))
        brightness[value] = release.sample([0, 1], 0).mean()
        assert f"images are like images of {value}, which {settings.name} learnt from first" in release.statement.text
    assert brightness[20] < 90
    assert brightness[230] > 160


@pytest.mark.parametrize(
    ("method", "public", "message"),
    [
        ("gaussian_mixture", _public(0), "`public_images` should be None: gaussian_mixture learns from no public"),
        (_SMALL, load_public_images("dead_leaves", (16, 16, 1)), r"shape of the private ones, \(16, 16, 3\); got"),
        (_SMALL, None, "images of strokes have one channel"),
        (
            _SMALL,
            PublicImages("bad", (16, 16, 3), lambda: np.zeros((3, 8, 9, 3), np.uint8)),
            "should give uint8 images",
        ),
    ],
)
def test_what_does_not_suit_is_refused_before_anything_is_spent(
    method: str | LatentGaussian, public: PublicImages | None, message: str, examples: LabeledDataset, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(ValueError, match=message), Backup(tmp_path / "backup") as backup:
        train(method, examples, _BUDGET, verbose=0, ledger=ledger, public_images=public, backup=backup)
    assert len(ledger.reservations(examples)) == 0


def test_a_resumed_training_has_the_same_public_images(examples: LabeledDataset, tmp_path: Path) -> None:
    class _Cut(BaseException):
        pass

    def cut(*_: object, **__: object) -> None:
        raise _Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Autoencoder, "train", cut)
        with pytest.raises(_Cut), Backup(tmp_path / "backup") as backup:
            train(_SMALL, examples, _BUDGET, verbose=0, backup=backup, public_images=_public(0, "a"))
    with pytest.raises(BackupError, match="public_images differ"), Backup(tmp_path / "backup") as backup:
        train(_SMALL, examples, _BUDGET, verbose=0, backup=backup, public_images=_public(0, "b"))
    with Backup(tmp_path / "backup") as backup:
        train(_SMALL, examples, _BUDGET, verbose=0, backup=backup, public_images=_public(0, "a"))


@pytest.mark.parametrize("method", [DPGAN, LatentGaussian])
def test_no_training_of_no_public_steps(method: type[DPGAN | LatentGaussian]) -> None:
    with pytest.raises(ValueError, match="`public_steps`"):
        method(public_steps=0)
