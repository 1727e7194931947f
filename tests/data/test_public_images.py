"""Public images: procedural ones are a function of nothing, others come as they are, and private ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFont
import pytest

from tfdpgen.choices import check_is_another, public_source
from tfdpgen.data import DataError, PublicImages, load_public_images
from tfdpgen.data import public_images as module
from tfdpgen.data.dead_leaves import random_dead_leaves
from tfdpgen.data.font_images import font_files, random_font_images, read_fonts


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_IMAGES", 40)


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one font that Pillow carries, below another folder, and a file that is none."""
    folder = tmp_path_factory.mktemp("fonts")
    (folder / "below").mkdir()
    font: Any = PIL.ImageFont.load_default(20)
    (folder / "below" / "carried.TTF").write_bytes(font.path.getvalue())
    (folder / "broken.otf").write_bytes(b"no font")
    (folder / "readme.txt").write_text("no font")
    return folder


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("source", ["strokes", "fonts", "dead_leaves"])
def test_procedural_images_are_the_same_each_time_and_declared(source: str, fonts: Path) -> None:
    name = f"fonts:{fonts}" if source == "fonts" else source
    one, other = (load_public_images(name, (20, 16, 1)) for _ in range(2))
    assert one.images().shape == (40, 20, 16, 1)
    np.testing.assert_array_equal(one.images(), other.images())
    assert one.images() is one.images()
    assert len({image.tobytes() for image in one.images()}) > 35
    assert "40 " in one.source
    assert str(fonts) not in one.source


def test_dead_leaves_have_the_spectrum_and_the_colours_of_photographs() -> None:
    """Power that falls about as the square of the frequency, and channels that vary together (Field 1987)."""
    images = random_dead_leaves(np.random.default_rng(0), 200, (64, 64, 3)).astype(float)
    brightness = images.mean(axis=3)
    window = np.hanning(64)[:, None] * np.hanning(64)
    centred = (brightness - brightness.mean(axis=(1, 2), keepdims=True)) * window
    power = np.mean(np.abs(np.fft.fft2(centred)) ** 2, axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    used = (frequency > 3 / 64) & (frequency < 0.4)
    slope, _ = np.polyfit(np.log(frequency[used]), np.log(power[used]), 1)
    assert -4 < slope < -1.5
    assert np.corrcoef(images.reshape(-1, 3).T).min() > 0.7
    assert np.abs(images[..., 0] - images[..., 1]).mean() > 5  # and are not the same
    assert random_dead_leaves(np.random.default_rng(0), 0, (8, 8, 1)).shape == (0, 8, 8, 1)


def test_fonts_are_letters_light_on_dark(fonts: Path) -> None:
    files = font_files(fonts)
    assert [file.name for file in files] == ["carried.TTF", "broken.otf"]
    fonts_read = read_fonts(files)
    assert len(fonts_read) == 1
    images = random_font_images(np.random.default_rng(0), 200, (28, 28), list(fonts_read.values()))
    assert 10 < images.mean() < 90
    assert np.mean(images.max(axis=(1, 2, 3)) > 150) > 0.9
    border = np.concatenate([images[:, 0].ravel(), images[:, -1].ravel()])
    assert border.mean() < images.mean() / 3


def test_a_folder_without_a_font_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least one font file with Latin letters; got 0 files.*fonts:FOLDER"):
        load_public_images(f"fonts:{tmp_path}", (28, 28, 1))


def test_as_many_images_as_fit_into_a_share_of_memory() -> None:
    assert "60,000 " in load_public_images("strokes", (28, 28, 1)).source
    assert "5,461 " in load_public_images("dead_leaves", (128, 128, 3)).source


def _write_folder(root: Path, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(256, size=(30, 40, 3), dtype=np.uint8)).save(root / name)


def _flat(root: Path) -> str:
    _write_folder(root, tuple(f"{i}.png" for i in range(60)))
    return str(root)


def _of_classes(root: Path) -> str:
    _write_folder(root, tuple(f"{name}/{i}.png" for name in "abc" for i in range(20)))
    return str(root)


def _npz(root: Path) -> str:
    images = np.random.default_rng(0).integers(256, size=(60, 16, 16, 1), dtype=np.uint8)
    np.savez(root / "images.npz", images=images, labels=np.arange(60) % 3, num_classes=3)
    return str(root / "images.npz")


@pytest.mark.parametrize("write", [_flat, _of_classes, _npz])
def test_whatever_can_be_private_can_be_public_in_the_shape_that_is_needed(
    write: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path)
    images = load_public_images(source, (16, 16, 1)).images()
    assert images.shape == (60, 16, 16, 1)
    monkeypatch.setattr(module, "_MOST_IMAGES", 25)
    some = load_public_images(source, (16, 16, 1))
    assert some.images().shape == (25, 16, 16, 1)
    assert {image.tobytes() for image in some.images()} < {image.tobytes() for image in images}
    assert some.source.startswith("25 images of ")
    assert str(tmp_path.parent) not in some.source  # a statement names no path of this machine


def test_what_they_are_is_told_apart_by_their_content(tmp_path: Path) -> None:
    source = _flat(tmp_path)
    before = load_public_images(source, (16, 16, 1)).source
    assert load_public_images(source, (16, 16, 1)).source == before
    PIL.Image.new("RGB", (30, 30)).save(tmp_path / "0.png")
    assert load_public_images(source, (16, 16, 1)).source != before


def test_a_source_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError, match=r"^`public_dataset`: .*nothing_such"):
        load_public_images("nothing_such.npz", (16, 16, 1))


@pytest.mark.parametrize(
    "images", [np.zeros((3, 8, 8, 1)), np.zeros((3, 8, 9, 1), np.uint8), np.zeros((0, 8, 8, 1), np.uint8)]
)
def test_images_of_ones_own_are_checked(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="should give uint8 images"):
        PublicImages("noise", (8, 8, 1), lambda: images).images()


@pytest.mark.parametrize(
    ("public", "private", "is_same"),
    [
        ("mnist", "mnist", True),
        ("MNIST:3.0.1", "mnist", True),
        ("svhn_cropped", "mnist", False),
        ("dead_leaves", "mnist", False),
        ("", "mnist", False),
        ("photos", "photos", True),
        ("photos/cats", "photos", True),
        ("photos", "photos/train", True),
        ("link", "photos", True),
        ("./photos/../photos", "photos", True),
        ("photos_of_others", "photos", False),
        ("photos/cats", "photos/train", False),
        ("FashionMNIST", "fashion_mnist", True),
        ("a/btgraham-300:3.0.0", "a/btgraham-300", True),
        ("photos:1.0.0", "photos", True),  # a folder of that name does not hide the data set
        ("huggingface:cifar10", "huggingface:mnist", False),
        ("strokes", "strokes", False),
        ("svhn_cropped", ".", False),
        ("digits", "digits", True),
        ("./digits", "digits", False),
        ("table/images", "table/labels.csv", True),
        ("table/copy.csv", "table/labels.csv", True),
        ("store/dogs", "linked", True),
        ("linked", "store/dogs", True),
        ("store", "photos", False),
    ],
)
def test_the_private_examples_are_no_public_ones(
    public: str, private: str, is_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/cats", "photos/train", "photos_of_others", "table/images", "store/dogs", "linked", "digits"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("table/labels.csv", "table/copy.csv"):
        (tmp_path / name).write_text("file,label")
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "linked" / "dogs").symlink_to("../store/dogs")
    if is_same:
        with pytest.raises(ValueError, match="`public_dataset` should be images that anybody may see"):
            check_is_another(public, private)
    else:
        check_is_another(public, private)


def test_a_method_that_learns_from_none_refuses_some() -> None:
    assert public_source("latent_gaussian", "") == "strokes"
    assert public_source("latent_gaussian", "fonts") == "fonts"
    assert public_source("gaussian_mixture", "") == ""
    with pytest.raises(ValueError, match=r"`public_dataset` should be empty .*gaussian_mixture.*latent_gaussian"):
        public_source("gaussian_mixture", "fonts")
