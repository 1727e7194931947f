"""Starting at a later step, and keeping what was paid for, on the toy pipeline: c reads a and b, d reads c."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from pipelines.beam_runner import ComponentFailedError, run
from pipelines.resuming import ResumeError, RootError, check_reusable, keeping, recover
from tests.pipelines.toy_pipeline import ToyConfig, toy


@pytest.fixture
def config(tmp_path: Path) -> ToyConfig:
    return ToyConfig(word="ab", times=3, log=str(tmp_path / "log"))


@pytest.fixture
def root(tmp_path: Path, config: ToyConfig) -> Path:
    """What a run has made."""
    run(toy(), config, tmp_path / "root")
    Path(config.log).unlink()
    return tmp_path / "root"


def _ran(config: ToyConfig) -> list[str]:
    return [line.split()[0] for line in Path(config.log).read_text().splitlines()]


def _words(root: Path) -> str:
    return (root / "d" / "publication" / "words").read_text()


def test_earlier_steps_do_not_run_again(
    root: Path, config: ToyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "c" / "synthetic" / "words").write_text("kept")
    run(toy(), config, root, start_at="d")
    assert sorted(_ran(config)) == ["d", "e"]
    assert _words(root) == "kept"
    assert "/2] d ..." in capsys.readouterr().out


def test_headers_keep_the_parameters(root: Path, config: ToyConfig) -> None:
    header = json.loads((root / "d" / "publication" / "artifact.json").read_text())
    assert header["parameters"] == {"log": config.log}
    release = header["inputs"]["synthetic"]["inputs"]["release"]
    assert release["parameters"] == {"repeats": 3, "log": config.log}


@pytest.mark.parametrize("start_at", ["c", "d"])
def test_other_parameters_are_refused(root: Path, config: ToyConfig, start_at: str) -> None:
    other = dataclasses.replace(config, times=5)
    with pytest.raises(ResumeError, match=r"made with times=3, and 5 is asked for\. Give --times=3\. Or run without"):
        run(toy(), other, root, start_at=start_at)
    assert not Path(config.log).exists()


def test_parameters_of_what_is_not_read_do_not_matter(root: Path, config: ToyConfig) -> None:
    (root / "b" / "release" / "artifact.json").unlink()
    pipeline = toy()
    del pipeline.nodes["c"], pipeline.nodes["d"]  # e reads a alone
    check_reusable(pipeline, dataclasses.replace(config, times=5), root, "e")
    with pytest.raises(ResumeError, match=r"needs what b made.* holds no finished TrainedRelease.*without --start_at"):
        check_reusable(toy(), config, root, "c")


def test_what_was_made_of_something_else_is_refused(root: Path, config: ToyConfig, tmp_path: Path) -> None:
    run(toy(), config, tmp_path / "other")
    (root / "a" / "examples").rename(tmp_path / "gone")
    (tmp_path / "other" / "a" / "examples").rename(root / "a" / "examples")
    check_reusable(toy(), config, root, "c")
    with pytest.raises(ResumeError, match=r"c/synthetic was made of another `examples` than lies in .*a/examples"):
        check_reusable(toy(), config, root, "d")


def test_what_can_be_had_without_another_training_is_said_so(
    root: Path, config: ToyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.resuming.PAID", "b")
    (root / "c" / "synthetic" / "artifact.json").unlink()
    with pytest.raises(ResumeError, match="start at that step, with --start_at=c: the training is kept"):
        check_reusable(toy(), config, root, "d")
    (root / "b" / "release" / "artifact.json").unlink()
    with pytest.raises(ResumeError, match=r"run without --start_at: .* is made anew, and a training pays anew"):
        check_reusable(toy(), config, root, "c")


def test_unknown_steps_and_empty_folders_are_refused(tmp_path: Path, config: ToyConfig) -> None:
    with pytest.raises(ResumeError, match="`start_at` should be one of a, b, c, d, e; got 'z'"):
        run(toy(), config, tmp_path / "root", start_at="z")
    with pytest.raises(ResumeError, match="does not exist"):
        run(toy(), config, tmp_path / "root", start_at="d")


def test_headers_of_other_versions_are_refused(root: Path, config: ToyConfig) -> None:
    path = root / "b" / "release" / "artifact.json"
    header = json.loads(path.read_text())
    del header["parameters"]
    path.write_text(json.dumps(header))
    with pytest.raises(ResumeError, match=r"lacks \['parameters'\]: another version of tfdpgen wrote it"):
        check_reusable(toy(), config, root, "c")


def test_what_was_paid_for_outlives_a_run_that_fails_before_it_is_made_anew(root: Path, config: ToyConfig) -> None:
    before = (root / "c" / "synthetic" / "artifact.json").read_text()
    with pytest.raises(ComponentFailedError, match="a was told to fail"):
        run(toy(), dataclasses.replace(config, word="x", fail="a"), root, paid="c")
    with pytest.raises(ComponentFailedError, match="c was told to fail") as failure:
        run(toy(), dataclasses.replace(config, word="x", fail="c"), root, paid="c")
    assert failure.value.step == "c"
    assert (root / "c" / "synthetic" / "artifact.json").read_text() == before
    assert not (root / "earlier").exists()
    run(toy(), config, root, start_at="d", paid="c")  # the new word of a did not stay, either
    assert _words(root) == "ababab"

    run(toy(), dataclasses.replace(config, word="x"), root, paid="c")
    assert _words(root) == "xxx"
    assert not (root / "earlier").exists()


def test_a_kill_at_any_time_leaves_one_whole_training(root: Path, config: ToyConfig) -> None:
    # While it is set aside.
    (root / ".earlier.part" / "b").mkdir(parents=True)
    recover(toy(), root, "c")
    assert not (root / ".earlier.part").exists()
    check_reusable(toy(), config, root, "d")

    # While the new one is made: of a there is another already, of c nothing.
    other = ToyConfig(word="z", log=str(root.parent / "other_log"))
    run(toy(), other, root.parent / "other")
    shutil.copytree(root, root.parent / "kept", symlinks=True)
    for folder in ("a", "b", "c", "d", "e"):
        shutil.copytree(root / folder, root / "earlier" / folder)
    shutil.rmtree(root / "a")
    shutil.copytree(root.parent / "other" / "a", root / "a")
    shutil.rmtree(root / "c")
    shutil.copytree(root, root.parent / "killed")
    recover(toy(), root, "c")
    check_reusable(toy(), config, root, "d")
    assert _words(root) == "ababab"

    # While it is put back: a is back, and c is not yet.
    root = root.parent / "killed"
    shutil.rmtree(root / "a")
    (root / "earlier" / "a").rename(root / "a")
    recover(toy(), root, "c")
    check_reusable(toy(), config, root, "d")

    # Between the end of the new training and the removal of the old one.
    with keeping(toy(), root, "c"):
        assert (root / "c").exists()
        shutil.rmtree(root / "c")
        shutil.copytree(root.parent / "other" / "c", root / "c")
    assert not (root / "earlier").exists()
    assert (root / "c" / "synthetic" / "words").read_text() == (
        root.parent / "other" / "c" / "synthetic" / "words"
    ).read_text()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, config: ToyConfig) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").write_text("x")
    with pytest.raises(RootError, match="holds something that no earlier run has put there"):
        run(toy(), config, tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["mine"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(RootError, match="it is a file"):
        run(toy(), config, tmp_path / "file")
