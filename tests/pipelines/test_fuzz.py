"""Whatever a user types or gives: a configuration or a line that says what is wrong, and never a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config import SynthesisConfig
from pipelines.local_run import flags_parser
from tfdpgen.data import load_splits

_TYPES = typing.get_type_hints(SynthesisConfig)
_NAMES = [field.name for field in dataclasses.fields(SynthesisConfig)]
_ODD = st.sampled_from(
    [
        *(
            "",
            " ",
            "-1",
            "0",
            "1",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "1e-400",
            "9" * 30,
            "true",
            "None",
            "28,28,1",
            "28,28",
        ),
        *(
            "a,b",
            "digits",
            "mnist",
            "c_vae",
            "iid:3",
            "../..",
            "~",
            "/",
            "\x00",
            "é",
            "%s",
            "{}",
            "--x",
            '"',
            "'",
            "a=b",
        ),
        *('"', "'", "a=b", "p2,p2", "0,0", "28,28"),
    ]
)
_VALUES = st.one_of(_ODD, st.text(max_size=20), st.integers().map(str), st.floats().map(str))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.one_of(st.sampled_from(_NAMES), st.text(max_size=8)), _VALUES, max_size=5))
def test_flags_give_a_configuration_or_one_line(flags: dict[str, str]) -> None:
    arguments = ["local_run.py", *(f"--{name}={value}" for name, value in flags.items())]
    said, written, code = io.StringIO(), io.StringIO(), None
    config = None
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(written):
            config = flags_parser(SynthesisConfig, "a help text")(arguments)
    except SystemExit as ended:
        code = ended.code or 0
    if config is None:
        assert code in (0, 2)  # 0: help was asked for
        assert code == 0 or said.getvalue().strip()
        assert "Traceback" not in said.getvalue()
        return
    assert isinstance(config, SynthesisConfig)
    for name in _NAMES:
        assert type(getattr(config, name)) is _TYPES[name]


@settings(max_examples=400)
@given(
    st.dictionaries(st.sampled_from(_NAMES), st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.booleans()))
)
def test_settings_are_taken_or_refused_with_a_sentence(values: dict[str, Any]) -> None:
    said = "`"
    try:
        SynthesisConfig(**{name: value for name, value in values.items() if type(value) is _TYPES[name]})
    except ValueError as error:
        said = str(error)
    assert "`" in said  # the argument's name


_KINDS = (np.uint8, np.int64, np.float32, np.float64, np.bool_, np.uint16, np.complex64)
_SHAPES = st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 4), st.sampled_from([1, 2, 3, 4]))
_ARRAYS = st.one_of(
    st.builds(np.ones, _SHAPES, st.sampled_from(_KINDS)),
    st.lists(st.sampled_from([-1, 0, 1, 2, 7, 2**40]), max_size=6).map(np.array),
    st.lists(st.text(max_size=3), max_size=4).map(np.array),
    st.just(np.array([float("nan"), 1.0])),
    st.just(np.array(3)),
)
_MEMBERS = ["images", "labels", "user_ids", "class_names", "x_train", "other"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.dictionaries(st.sampled_from(_MEMBERS), _ARRAYS),
    classes=st.sampled_from([None, 2, 3]),
    users=st.sampled_from(["", "iid:2", "by_class:1"]),
)
def test_arrays_are_read_or_refused_with_a_sentence(
    tmp_path: Path, arrays: dict[str, Any], classes: int | None, users: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    said = ""
    try:
        splits = load_splits(str(tmp_path / "data.npz"), num_classes=classes, users=users, verbose=False)
    except ValueError as error:
        said = str(error)
    assert len(said) > 20 or splits.train.spec.num_classes == (classes or splits.train.spec.num_classes)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["t.csv", "t.parquet", "t.npz", "t.tsv"]), content=st.one_of(
    st.binary(max_size=200),
    st.text(alphabet="file,label;user\n\t\"'ab.png01 \x00", max_size=120).map(str.encode),
))  # fmt: skip
def test_files_of_anything_are_refused_with_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r".{20}"):
        load_splits(str(tmp_path / name), image_shape=(8, 8, 1), num_classes=2, verbose=False)
