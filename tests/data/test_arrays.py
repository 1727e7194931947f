"""Arrays: every layout that people save, labels of every kind, and headers that are checked before memory is asked
for."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfdpgen.data import DataError, Declared, load_splits
from tfdpgen.data import npz as npz_module
from tfdpgen.data.labels import to_labels
from tfdpgen.data.values import to_bytes

LABELS = np.arange(100) % 3


def images(count: int = 100, first: int = 0) -> np.ndarray:
    """uint8 [n, 12, 16], each with its number in the corner."""
    pixels = np.random.default_rng(0).integers(256, size=(count, 12, 16), dtype=np.uint8)
    pixels[:, 0, 0] = np.arange(first, first + count)
    return pixels


def load(folder: Path, arrays: dict[str, Any], **flags: Any) -> Any:
    np.savez(folder / "a.npz", **arrays)
    return load_splits(str(folder / "a.npz"), **({"num_classes": 3} | flags))


def everything(splits: Any) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels, in the order of the file."""
    parts = (splits.train, splits.holdout, splits.test)
    pixels, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    order = np.argsort(pixels[:, 0, 0, 0])
    return pixels[order], labels[order]


@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("image", "label"), ("X", "y"), ("x", "Y"), ("data", "target"), ("arr_0", "arr_1")],
)
def test_one_set_under_every_name(tmp_path: Path, names: tuple[str, str]) -> None:
    splits = load(tmp_path, {names[0]: images(), names[1]: LABELS, "notes": np.array([{}])})  # objects beside are fine
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (60, 20, 20)
    pixels, labels = everything(splits)
    np.testing.assert_array_equal(pixels[..., 0], images())
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("form", ["x_{}|y_{}", "X_{}|Y_{}", "{}_images|{}_labels", "images_{}|labels_{}"])
def test_splits_as_keras_and_medmnist_save_them(tmp_path: Path, form: str) -> None:
    arrays = {}
    for split, first, count in (("train", 0, 120), ("test", 200, 30)):
        names = form.format(split, split).split("|")
        arrays |= {names[0]: images(count, first), names[1]: LABELS[:1].repeat(count)}
    splits = load(tmp_path, arrays)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (108, 12, 30)
    assert set(splits.test.images[:, 0, 0, 0]) == set(range(200, 230))
    names = form.format("val", "val").split("|")
    splits = load(tmp_path, arrays | {names[0]: images(20, 150), names[1]: LABELS[:20, None]})
    assert set(splits.holdout.images[:, 0, 0, 0]) == set(range(150, 170))
    assert len(splits.train) == 120


@pytest.mark.parametrize(
    ("labels", "flags"),
    [
        (LABELS[:, None], {}), (LABELS.astype(np.float32), {}), (LABELS.astype(np.uint8), {}), (np.eye(3)[LABELS], {}),
        (np.eye(3, dtype=bool)[LABELS], {"num_classes": None}), (LABELS.astype(str), {}),
        (np.array(["c", "a", "b"])[LABELS], {"classes": ("c", "a", "b")}),
        (np.array(["c", "a", "b"])[LABELS][:, None], {"classes": ("c", "a", "b")}),
        (np.array([b"c", b"a", b"b"])[LABELS], {"classes": ("c", "a", "b")}),
        (LABELS, {"classes": ("c", "a", "b")}), (LABELS + 1, {"classes": ("1", "2", "3")}),
        ((LABELS + 1).astype(str), {"classes": ("1", "2", "3")}),
        (np.array([7, 0, -1])[LABELS], {"classes": ("7", "0", "-1")}),
    ],
)  # fmt: skip
def test_labels_of_every_kind(tmp_path: Path, labels: np.ndarray, flags: dict[str, Any]) -> None:
    splits = load(tmp_path, {"images": images(), "labels": labels}, **flags)
    np.testing.assert_array_equal(everything(splits)[1], LABELS)
    assert splits.spec.class_names == flags.get("classes", ())


def test_labels_that_are_bool(tmp_path: Path) -> None:
    splits = load(tmp_path, {"images": images(), "labels": LABELS == 1}, num_classes=2)
    np.testing.assert_array_equal(everything(splits)[1], LABELS == 1)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            LABELS + 1,
            (),
            r"lie in \[0, 3\); example 2 has 3 \(33 of 100 labels are wrong\)\. Labels start at 0: .*--classes=1,2,3",
        ),
        (LABELS / 2, (), r"be integers, or floats that are whole; example 1 has 0\.5 \(33 of 100 labels"),
        (np.where(LABELS == 0, np.nan, 1), (), "whole; example 0 has nan"),
        (np.eye(3)[LABELS] * 2, (), "hold one 1 and otherwise 0, being one-hot; example 0"),
        (np.eye(4)[LABELS], (), r"one-hot of shape \[n, 3\]; got float64 of shape \[100, 4\]"),
        (np.array(["a", "b", "c"])[LABELS], (), "integers where no `--classes` are declared; example 0 has 'a'"),
        (np.array(["a", "b", "d"])[LABELS], ("a", "b", "c"), "declared `classes` a,b,c; example 2 has 'd'"),
        (LABELS * 3, ("0", "3", "5"), "declared `classes` 0,3,5; example 2 has 6"),
        (LABELS.astype(complex), (), "got complex128"),
    ],
)
def test_labels_that_are_refused(labels: np.ndarray, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=r"^here: `labels` should .*" + message):
        to_labels(labels, Declared(num_classes=3, classes=classes), "here")


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_where_the_declared_shape_says_so(tmp_path: Path, channels: int) -> None:
    last = np.repeat(images()[..., None], channels, axis=3)
    last[..., 1:] //= 2
    arrays = {"images": np.moveaxis(last, 3, 1), "labels": LABELS}
    splits = load(tmp_path, arrays, image_shape=(12, 16, channels))
    np.testing.assert_array_equal(everything(splits)[0], last)
    with pytest.raises(DataError, match=rf"Declare channels that come first by `--image_shape=12,16,{channels}`"):
        load(tmp_path, arrays)


def test_arrays_are_resized_and_recoloured_as_declared(tmp_path: Path) -> None:
    grey = {"images": np.full((100, 12, 16), 90, np.uint8), "labels": LABELS}
    assert (everything(load(tmp_path, grey, image_shape=(6, 6, 3), resize="crop"))[0] == 90).all()
    assert everything(load(tmp_path, grey, image_shape=(12, 16, 3)))[0].shape == (100, 12, 16, 3)
    with pytest.raises(DataError, match=r"`image_shape` should be \(12, 16, 1\), .*--resize=crop.* got \(6, 6, 1\)"):
        load(tmp_path, grey, image_shape=(6, 6, 1))
    transparent = {"images": np.zeros((100, 12, 16, 4), np.uint8), "labels": LABELS}
    assert (everything(load(tmp_path, transparent, background=(9,)))[0] == 9).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.int64, bool, ">f4"])
def test_every_type_and_order_is_read_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, order: Any
) -> None:
    monkeypatch.setattr(npz_module, "_BLOCK_BYTES", 7 * 12 * 16 * np.dtype(dtype).itemsize)
    integers = np.dtype(dtype).kind in "ui"
    values = images() > 127 if dtype is bool else images().astype(dtype) / (1 if integers else 255)
    arrays = {"images": np.asarray(values, dtype, order=order), "labels": LABELS}
    splits = load(tmp_path, arrays, value_range=(0, 255) if integers else (0, 1))
    expected = np.where(images() > 127, 255, 0) if dtype is bool else images()
    assert sorted(map(bytes, everything(splits)[0])) == sorted(map(bytes, expected.astype(np.uint8)))


class TestRange:
    def test_the_noise_of_floats_is_clipped_and_more_is_refused(self) -> None:
        values = np.full((5, 2, 2), 0.5, np.float64)
        values[3, 1, 0], values[4, 0, 0] = 1 + 1e-6, -1e-6
        assert to_bytes(values, (0.0, 1.0), "here")[3:, :, 0].tolist() == [[128, 255], [0, 128]]
        assert to_bytes(values.astype(np.float32), (0.0, 1.0), "here")[3, 1, 0] == 255
        values[4, 0, 0] = 1.00001
        with pytest.raises(DataError, match=r"here: .* example 14 holds 1\.00001\. .*--value_range"):
            to_bytes(values, (0.0, 1.0), "here", first=10)

    @pytest.mark.parametrize(
        ("dtype", "value_range", "message"),
        [
            (np.float32, (0, 255), "that of float32 values, often 0,1; got 0,255, the range of uint8.*astype"),
            (np.float64, (0, 65535), "the range of uint16"),
            (np.uint8, (0, 65535), "should lie within 0,255, which uint8 can hold; got 0,65535"),
            (np.uint8, (-1, 1), "should lie within 0,255"),
            (bool, (0, 255), "should lie within 0,1, which bool can hold"),
        ],
    )
    @pytest.mark.parametrize("level", [0, 1])
    def test_whether_a_declared_range_is_plausible_is_told_by_the_type_alone(
        self, tmp_path: Path, dtype: Any, value_range: tuple[float, float], message: str, level: int
    ) -> None:
        with pytest.raises(DataError, match=message):  # whatever the values
            load(tmp_path, {"images": np.full((100, 4, 5), level, dtype), "labels": LABELS}, value_range=value_range)


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    """The header of a .npy that claims that shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue()


def write(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


class TestHeaders:
    @pytest.mark.parametrize(
        ("shape", "words"),
        [
            ((10**9, 1000, 1000), "1,000 TB"),
            ((2**60, 2**60), "TB"),
            ((99, 12, 16), "19 KB"),
            ((101, 12, 16), "19.4 KB"),
        ],
    )
    def test_a_header_that_lies_is_refused_before_memory_is_asked_for(
        self, tmp_path: Path, shape: tuple[int, ...], words: str
    ) -> None:
        path = tmp_path / "a.npz"
        labels = header((100,), "<i8") + LABELS.astype("<i8").tobytes()
        write(path, {"images.npy": header(shape) + images().tobytes(), "labels.npy": labels})
        tracemalloc.start()
        with pytest.raises(DataError, match=r"a\.npz: `images` should hold what its header declares") as caught:
            load_splits(str(path), num_classes=3)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()
        assert words in str(caught.value)
        assert "the file holds 19.2 KB" in str(caught.value)

    def test_a_decompression_bomb_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(npz_module, "_BOMB_BYTES", 10**6)
        path = tmp_path / "a.npz"
        np.savez_compressed(path, images=np.zeros((100, 200, 200), np.uint8), labels=LABELS)
        with pytest.raises(DataError, match=r"`images` unpacks from \S+ KB to 4 MB, .* as decompression bombs do"):
            load_splits(str(path), num_classes=3)
        np.savez(path, images=np.zeros((100, 200, 200), np.uint8), labels=LABELS)  # as the message says
        load_splits(str(path), num_classes=3)

    @pytest.mark.parametrize(
        "content",
        [
            b"\x93NUMPY\x09\x00", b"", header((100,), "<i8")[:20], b"\x93NUMPY\x01\x00\x05\x00(((((",
            b"\x93NUMPY\x01\x00\x88\x13" + b"(" * 5000, header((100,), "<U0"),
        ],
    )  # fmt: skip
    def test_a_made_up_header_is_refused_where_it_is_needed(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.npz"
        write(path, {"images.npy": header((100, 12, 16)) + images().tobytes(), "labels.npy": content})
        with pytest.raises(DataError, match=r"a\.npz.* (should be an undamaged|should hold|should be integers)"):
            load_splits(str(path), num_classes=3)
        labels = header((100,), "<i8") + LABELS.astype("<i8").tobytes()
        write(path, {"images.npy": header((100, 12, 16)) + images().tobytes(), "labels.npy": labels, "x.npy": content})
        load_splits(str(path), num_classes=3)

    def test_a_size_that_the_file_cannot_have_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, images=images(), labels=LABELS)
        content = bytearray(path.read_bytes())
        place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"PK\x01\x02"))  # of the first array's entry
        content[place + 20 : place + 24] = (2**31).to_bytes(4, "little")
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz should be an undamaged"):
            load_splits(str(path), num_classes=3)

    def test_wide_types_take_memory_for_bytes_alone(self, tmp_path: Path) -> None:
        wide = np.random.default_rng(0).random((4000, 28, 28), np.float32)  # 12.5 MB, or 3.1 MB as bytes
        np.savez(tmp_path / "a.npz", images=wide, labels=np.zeros(4000, int))
        del wide
        tracemalloc.start()
        load_splits(str(tmp_path / "a.npz"), num_classes=2, value_range=(0, 1))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3.2e6 * 2 + 7e6  # itself and its splits, and a block of 1 MB with what is made of it


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.array([None] * 100), "labels": LABELS}, "should be a plain array; it holds Python objects"),
        ({"arr_0": images()}, r"should hold the arrays `images` and `labels` \(or .* holds \['arr_0'\]"),
        ({"x_test": images(), "y_test": LABELS}, "should hold the arrays"),
        (
            {"images": images(), "labels": LABELS, "x_train": images(), "y_train": LABELS},
            "should hold either splits or one set",
        ),
        (
            {"x_train": images(), "y_train": LABELS, "x_test": images()[:, 1:], "y_test": LABELS},
            "images of all splits should have one shape",
        ),
    ],
)
def test_layouts_that_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, arrays)


def test_one_class_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`num_classes` should be at least 2; got 1"):
        load(tmp_path, {"images": images(), "labels": LABELS}, num_classes=1)


def test_users_in_an_npz_are_kept_together(tmp_path: Path) -> None:
    splits = load(tmp_path, {"images": images(), "labels": LABELS, "user_ids": np.arange(100) // 4 + 7})
    parts = (splits.train, splits.holdout, splits.test)
    assert [len(np.unique(part.user_ids)) for part in parts] == [15, 5, 5]
    assert (splits.train.user_ids == splits.train.images[:, 0, 0, 0] // 4 + 7).all()
    with pytest.raises(DataError, match=r"`user_ids` should be integers of shape \[100\]"):
        load(tmp_path, {"images": images(), "labels": LABELS, "user_ids": np.arange(99)})
    given = {"x_train": images(120), "y_train": LABELS[:1].repeat(120), "x_test": images(30), "y_test": LABELS[:30]}
    users = {"train_user_ids": np.arange(120) // 4, "user_ids_test": np.arange(30) // 4 + 30}
    assert set(load(tmp_path, given | users).test.user_ids) == set(range(30, 38))
    with pytest.raises(DataError, match="a user should be in one split; 8 of test are also in train"):
        load(tmp_path, given | users | {"user_ids_test": np.arange(30) // 4})
