"""Archives that are written and read a block at a time: NumPy reads them, and parts of them can be read alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfdpgen.data.npz import NpzFile
from tfdpgen.data.npz_writer import NpzWriter

ROWS = np.random.default_rng(0).integers(256, size=(25, 4, 3, 1), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with NpzWriter(tmp_path / "a.npz") as npz:
        with npz.member("images", ROWS.shape, ROWS.dtype) as images:
            for start in range(0, 25, 10):
                images.append(ROWS[start : start + 10])
        npz.write("names", np.array(["a", "öb"]))
    return tmp_path / "a.npz"


def test_numpy_reads_what_was_written(path: Path) -> None:
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["images"], ROWS)
        assert arrays["names"].tolist() == ["a", "öb"]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 7), (3, 25), (24, 99), (25, 30), (40, 50), (0, None)])
@pytest.mark.parametrize("rows_in_block", [1, 10, 100])
def test_parts_can_be_read_alone(
    path: Path, start: int, stop: int | None, rows_in_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfdpgen.data.npz._BLOCK_BYTES", rows_in_block * ROWS[0].nbytes)
    with NpzFile(path) as archive:
        member = archive.member("images")
        np.testing.assert_array_equal(archive.read(member, start, stop), ROWS[start:stop])
        assert member.shape == ROWS.shape


def test_blocks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with NpzWriter(tmp_path / "a.npz") as npz:
        with pytest.raises(ValueError, match="a should have 3 rows; got 4"), npz.member("a", (3,), "i8") as member:
            member.append(np.zeros(4, "i8"))
        with (
            pytest.raises(ValueError, match=r"should be int64 of shape \['k', 2\]; got"),
            npz.member("b", (3, 2), "i8") as member,
        ):
            member.append(np.zeros((3, 1), "i8"))
        with pytest.raises(ValueError, match="c should have 3 rows; got 2"), npz.member("c", (3,), "i8") as member:
            member.append(np.zeros(2, "i8"))
