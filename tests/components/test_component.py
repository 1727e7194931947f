from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from components import (
    Artifact,
    ArtifactError,
    ComponentError,
    Input,
    Output,
    Parameter,
    PrivateExamples,
    SyntheticExamples,
    TrainedRelease,
)
from components.component import component, message_of
from tfdpgen.data import DataError
from tfdpgen.files import FolderInUseError


@component
def write(
    examples: Output[PrivateExamples],
    *,
    text: Annotated[str, "what to write"],
    copies: Annotated[int, "how often, 100 % of the time"] = 1,
    rate: Annotated[float, "of nothing"] = 0.5,
    fail: Annotated[bool, "whether to fail half-way"] = False,
) -> None:
    """Writes a text.

    And says so.
    """
    (examples.path / "text").write_text(text * copies)
    if fail:
        raise ValueError("the text\nis bad")
    examples.facts = {"rate": rate}


@component
def read(examples: Input[PrivateExamples], release: Output[TrainedRelease]) -> None:
    """Copies a text."""
    (release.path / "text").write_text((examples.path / "text").read_text())


@component
def linger(examples: Output[PrivateExamples], *, seconds: Annotated[float, "how long"] = 60.0) -> None:
    """Writes a text and lingers before it is finished."""
    (examples.path / "text").write_text("half")
    print("lingering", flush=True)
    time.sleep(seconds)


def test_definition_holds_what_the_signature_says() -> None:
    assert write.name == "write"
    assert write.summary == "Writes a text."
    assert (write.inputs, write.outputs) == ({}, {"examples": PrivateExamples})
    assert (read.inputs, read.outputs) == ({"examples": PrivateExamples}, {"release": TrainedRelease})
    assert write.parameters == {
        "text": Parameter(str, Parameter.REQUIRED, "what to write"),
        "copies": Parameter(int, 1, "how often, 100 % of the time"),
        "rate": Parameter(float, 0.5, "of nothing"),
        "fail": Parameter(bool, False, "whether to fail half-way"),
    }


def _untyped(out: Output[TrainedRelease], *, rows=1) -> None: ...
def _helpless(out: Output[TrainedRelease], *, rows: int = 1) -> None: ...
def _unknown_type(out: Output[TrainedRelease], *, rows: Annotated[list, "rows"]) -> None: ...
def _no_artifact(rows: Input[Path], out: Output[TrainedRelease]) -> None: ...
def _positional(out: Output[TrainedRelease], rows: Annotated[int, "rows"]) -> None: ...
def _late(out: Output[TrainedRelease], *, rows: Input[PrivateExamples]) -> None: ...
def _bad_default(out: Output[TrainedRelease], *, rows: Annotated[int, "rows"] = 0.5) -> None: ...
def _outputless(rows: Input[PrivateExamples]) -> None: ...


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (_untyped, "`rows` .* got no type"),
        (_helpless, "`rows` .* got <class 'int'>"),
        (_unknown_type, "`rows` .* got .*list"),
        (_no_artifact, "`rows` .* type of artifact"),
        (_positional, "`rows` .* after the `\\*`"),
        (_late, "`rows` .* before the `\\*`"),
        (_bad_default, "`rows` .* default` should be int; got 0.5"),
        (_outputless, "no output"),
    ],
)
def test_wrong_definitions_are_refused_by_name(fn: Any, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        component(fn)


def test_execute_leaves_a_finished_artifact_with_its_lineage(tmp_path: Path) -> None:
    write.execute({}, {"examples": tmp_path / "a"}, {"text": "ab", "copies": 2.0, "rate": 1})
    read.execute({"examples": tmp_path / "a"}, {"release": tmp_path / "b"})

    examples, release = PrivateExamples.open(tmp_path / "a"), TrainedRelease.open(tmp_path / "b")
    assert (release.path / "text").read_text() == "abab"
    assert json.loads((tmp_path / "a" / "artifact.json").read_text()) == examples.header
    assert (examples.component, examples.facts, examples.internal) == ("write", {"rate": 1.0}, True)
    assert (release.component, release.internal) == ("read", False)
    assert examples.seconds >= 0
    assert release.made_of("examples") == examples.header
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    with pytest.raises(ArtifactError, match=r"made of .'examples'.; expected `other`"):
        release.made_of("other")


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_lasts_ends_when_the_outputs_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    seen: list[Any] = []

    @contextlib.contextmanager
    def lasting() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            seen.append(str(error))
            raise
        seen.append((tmp_path / "a" / "artifact.json").exists())

    @component
    def kept(examples: Output[PrivateExamples]) -> None:
        examples.lasting.enter_context(lasting())

    if is_sealed:
        kept.execute({}, {"examples": tmp_path / "a"})
        assert seen == [True]
        return

    def full(self: PrivateExamples) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(PrivateExamples, "seal", full)
    with pytest.raises(OSError, match="the disk is full"):
        kept.execute({}, {"examples": tmp_path / "a"})
    assert seen == ["the disk is full"]
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "write needs parameters .'text'"),
        ({"text": "a", "word": "b"}, "write has no parameters .'word'"),
        ({"text": 1}, "`text` should be str; got 1"),
        ({"text": "a", "copies": 1.5}, "`copies` should be int; got 1.5"),
        ({"text": "a", "copies": True}, "`copies` should be int; got True"),
        ({"text": "a", "rate": "1"}, "`rate` should be float; got '1'"),
        ({"text": "a", "fail": 1}, "`fail` should be bool; got 1"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        write.execute({}, {"examples": tmp_path / "a"}, parameters)
    assert not any(tmp_path.iterdir())


def test_inputs_have_to_be_finished_and_of_their_type(tmp_path: Path) -> None:
    def attempt() -> None:
        read.execute({"examples": tmp_path / "a"}, {"release": tmp_path / "b"})

    with pytest.raises(ComponentError, match=r"read needs inputs .'examples'"):
        read.execute({}, {"release": tmp_path / "b"})
    with pytest.raises(ArtifactError, match="a does not exist"):
        attempt()
    (tmp_path / "a").mkdir()
    with pytest.raises(ArtifactError, match="no finished PrivateExamples"):
        attempt()
    (tmp_path / "a" / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match="not the header"):
        attempt()
    SyntheticExamples(tmp_path / "a").seal()
    with pytest.raises(ArtifactError, match=r"expected a PrivateExamples; .*a holds a SyntheticExamples"):
        attempt()
    assert os.listdir(tmp_path) == ["a"]


def test_only_artifacts_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        write.execute({}, {"examples": tmp_path / "empty"}, {"text": "a"})
    first = PrivateExamples.open(tmp_path / "empty")
    write.execute({}, {"examples": tmp_path / "empty"}, {"text": "b"})
    assert PrivateExamples.open(tmp_path / "empty").id != first.id
    assert (tmp_path / "empty" / "text").read_text() == "b"

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("all of it")
    with pytest.raises(ArtifactError, match=r"expected a TrainedRelease; .* holds a PrivateExamples"):
        read.execute({"examples": tmp_path / "empty"}, {"release": tmp_path / "empty"})
    with pytest.raises(ComponentError, match="mine holds something that is not an artifact"):
        write.execute({}, {"examples": tmp_path / "mine"}, {"text": "a"})
    assert sorted(os.listdir(tmp_path)) == ["empty", "mine"]
    assert os.listdir(tmp_path / "mine") == ["thesis"]


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    def attempt() -> None:
        with pytest.raises(ValueError, match="the text"):
            write.execute({}, {"examples": tmp_path / "a"}, {"text": "new", "fail": True})

    attempt()
    assert not any(tmp_path.iterdir())
    write.execute({}, {"examples": tmp_path / "a"}, {"text": "old"})
    attempt()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a" / "text").read_text() == "old"


def _start_lingering(path: Path) -> subprocess.Popen[str]:
    """A process in the middle of `linger`."""
    code = f"from {__name__} import linger; linger.execute({{}}, {{'examples': {str(path)!r}}})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    assert process.stdout.readline() == "lingering\n"
    return process


def test_sigkill_leaves_nothing_that_looks_finished_and_the_next_run_works(tmp_path: Path) -> None:
    output = tmp_path / "a"
    process = _start_lingering(output)
    try:
        with pytest.raises(FolderInUseError, match="being written by another process"):
            linger.execute({}, {"examples": output}, {"seconds": 0})
        assert (tmp_path / ".a.part" / "text").read_text() == "half"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    assert not list(tmp_path.rglob("artifact.json"))

    write.execute({}, {"examples": output}, {"text": "whole"})
    assert (output / "text").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a"]


def test_pickles_as_a_reference() -> None:
    assert pickle.loads(pickle.dumps(write)) is write


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        write.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for part in (
        "Writes a text.",
        "--examples DIR PrivateExamples. The private examples: train, holdout and test split.",
        "--text STR what to write (required)",
        "--copies INT how often, 100 % of the time (default: 1)",
        "--fail, --no-fail whether to fail half-way (default: False)",
    ):
        assert part in text

    write.main([f"--examples={tmp_path / 'a'}", "--text=ab", "--copies=3"])
    assert (tmp_path / "a" / "text").read_text() == "ababab"
    with pytest.raises(SystemExit, match=r"^write failed: the text is bad$"):
        write.main([f"--examples={tmp_path / 'a'}", "--text=ab", "--fail"])
    for flags in (["--text=a"], [f"--examples={tmp_path}", "--text=a", "--copies=x"], ["--tex=a"]):
        with pytest.raises(SystemExit) as end:
            write.main(flags)
        assert end.value.code == 2


def test_artifact_types_have_a_line_of_help() -> None:
    assert all(kind.__doc__ for kind in Artifact.__subclasses__())


def test_a_list_of_bad_data_keeps_its_lines_and_other_errors_are_one() -> None:
    listed = "photos: 2 of 9 files cannot be used:\n  a.png is damaged;\n  b.png is damaged."
    assert message_of(DataError(listed)) == listed
    assert message_of(ValueError(listed)) == " ".join(listed.split())
