from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from components import ArtifactError, Publication
from pipelines.beam_runner import ComponentFailedError, run
from pipelines.lineage import Lineage, UnknownArtifactError
from tests.pipelines.toy_pipeline import ToyConfig, toy
from tfdpgen.files import FolderInUseError, folder_lock


def _ran(log: Path) -> list[str]:
    """The steps that ran, in their order."""
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_every_node_runs_once_after_its_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    run(toy(), ToyConfig(word="ab", times=3, log=str(log)), tmp_path / "root")

    steps = _ran(log)
    assert sorted(steps) == ["a", "b", "c", "d", "e"]
    assert max(steps.index("a"), steps.index("b")) < steps.index("c") < steps.index("d")
    assert steps.index("a") < steps.index("e")
    publication = Publication.open(tmp_path / "root" / "d" / "publication")
    assert (publication.path / "words").read_text() == "ababab"
    assert publication.made_of("synthetic")["component"] == "c"
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o700
    assert "private examples" in (tmp_path / "root" / "README").read_text()
    assert not any((tmp_path / "root" / "runs").iterdir())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert [line[:5] for line in lines[::2]] == ["[1/5]", "[2/5]", "[3/5]", "[4/5]", "[5/5]"]
    assert any(line[6:].startswith("d done in ") for line in lines)


def test_a_second_run_makes_anew_what_would_come_out_otherwise(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("x", "y"):
        run(toy(), ToyConfig(word=word, log=str(log)), tmp_path / "root")
    assert (tmp_path / "root" / "d" / "publication" / "words").read_text() == "yy"
    assert sorted(_ran(log)) == ["a", "a", "b", "c", "c", "d", "d", "e", "e"]  # b has nothing to do with the word


def test_the_same_run_twice_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, config = tmp_path / "log", ToyConfig(word="x", log=str(tmp_path / "log"))
    run(toy(), config, tmp_path / "root")
    headers = {path: path.read_text() for path in (tmp_path / "root").rglob("artifact.json")}
    capsys.readouterr()
    run(toy(), config, tmp_path / "root", paid="c", warning=lambda differences: f"pays again {differences}")
    said = capsys.readouterr().out
    assert len(_ran(log)) == 5
    assert said.count("nothing has changed, and what it made is kept") == 5
    assert "pays again" not in said
    assert {path: path.read_text() for path in (tmp_path / "root").rglob("artifact.json")} == headers
    run(toy(), config, tmp_path / "root", paid="c", anew=True, warning=lambda differences: f"pays again {differences}")
    assert len(_ran(log)) == 10
    assert "pays again" in capsys.readouterr().out


def test_a_run_that_failed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ComponentFailedError):
        run(toy(), ToyConfig(fail="c", log=str(log)), tmp_path / "root")
    log.unlink()
    run(toy(), ToyConfig(log=str(log)), tmp_path / "root")
    assert {"c", "d"} <= set(_ran(log))
    assert "b" not in _ran(log)


def test_what_was_changed_since_is_neither_used_nor_replaced(tmp_path: Path) -> None:
    config = ToyConfig(log=str(tmp_path / "log"))
    run(toy(), config, tmp_path / "root")
    words = tmp_path / "root" / "c" / "synthetic" / "words"
    words.write_text("mine")
    with pytest.raises(ArtifactError, match=r"c/synthetic was changed since it was made by c, .*--nocache"):
        run(toy(), config, tmp_path / "root", paid="c")
    assert words.read_text() == "mine"
    run(toy(), config, tmp_path / "root", paid="c", anew=True)
    assert words.read_text() != "mine"


def test_another_version_makes_everything_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ToyConfig(log=str(tmp_path / "log"))
    run(toy(), config, tmp_path / "root")
    monkeypatch.setattr("tfdpgen.__version__", "999")
    run(toy(), config, tmp_path / "root")
    assert len(_ran(tmp_path / "log")) == 10


def test_what_a_run_makes_is_in_the_index(tmp_path: Path) -> None:
    run(toy(), ToyConfig(log=str(tmp_path / "log")), tmp_path / "root", index=str(tmp_path / "index.sqlite"))
    index = Lineage(tmp_path / "index.sqlite")
    node, part = index.find(tmp_path / "root" / "d" / "publication")
    assert (node.type, node.component, part) == ("Publication", "d", "")
    (source,) = index.made_of(node).values()
    assert {name: one.component for name, one in index.made_of(source).items()} == {"examples": "a", "release": "b"}
    assert node in index.used_in(source)
    assert len({one.run for one in (node, source)}) == 1
    shutil.copy(tmp_path / "root" / "d" / "publication" / "words", tmp_path / "copy")
    assert index.find(tmp_path / "copy") == (node, "words")
    (tmp_path / "copy").write_text("other")
    with pytest.raises(UnknownArtifactError, match="knows nothing of its content"):
        index.find(tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "index.sqlite").stat().st_mode) == 0o600
    (tmp_path / "index.sqlite").chmod(0o644)
    Lineage(tmp_path / "index.sqlite")
    assert stat.S_IMODE((tmp_path / "index.sqlite").stat().st_mode) == 0o600


def test_an_index_that_cannot_be_written_fails_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.sqlite").write_text("no database")
    run(toy(), ToyConfig(log=str(tmp_path / "log")), tmp_path / "root", index=str(tmp_path / "index.sqlite"))
    assert "d: not recorded in" in capsys.readouterr().out
    assert (tmp_path / "index.sqlite").read_text() == "no database"


def test_a_failing_node_stops_its_downstream_and_names_its_cause(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ComponentFailedError, match=r"^c failed \(ValueError\): c was told to fail$") as failure:
        run(toy(), ToyConfig(fail="c", log=str(log)), tmp_path / "root")
    steps = _ran(log)
    assert steps.count("c") == 1
    assert {"a", "b"} <= set(steps)
    assert "d" not in steps
    assert not (tmp_path / "root" / "c" / "synthetic").exists()
    assert "in _step" in failure.value.details.read_text()


def test_a_node_that_is_interrupted_says_so(tmp_path: Path) -> None:
    with pytest.raises(ComponentFailedError, match=r"^c was interrupted\.$") as failure:
        run(toy(), ToyConfig(fail="c by Ctrl-C", log=str(tmp_path / "log")), tmp_path / "root")
    assert failure.value.step == "c"
    assert not (tmp_path / "root" / "c" / "synthetic").exists()


def test_a_runner_that_retries_does_not_run_a_node_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    retrying = ["--runner=apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner"]
    run(toy(), ToyConfig(log=str(log)), tmp_path / "root", beam_args=retrying)
    assert sorted(_ran(log)) == ["a", "b", "c", "d", "e"]

    log.unlink()
    with pytest.raises(ComponentFailedError, match=r"^a failed \(ValueError\): a was told to fail$"):
        run(toy(), ToyConfig(fail="a", log=str(log)), tmp_path / "root", beam_args=retrying)
    assert _ran(log).count("a") == 1
    assert not {"c", "d", "e"} & set(_ran(log))


def test_beam_s_own_flags_reach_beam(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    run(toy(), ToyConfig(log=str(log)), tmp_path / "root", beam_args=workers)
    assert sorted(_ran(log)) == ["a", "b", "c", "d", "e"]
    with pytest.raises(ValueError, match="NoSuchRunner"):
        run(toy(), ToyConfig(log=str(log)), tmp_path / "root", beam_args=["--runner=NoSuchRunner"])
    assert len(_ran(log)) == 5


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        folder_lock(tmp_path / "root"),
        pytest.raises(FolderInUseError, match="root is being written by another process"),
    ):
        run(toy(), ToyConfig(log=str(tmp_path / "log")), tmp_path / "root")
    assert not (tmp_path / "log").exists()


def test_the_message_is_all_that_a_failed_run_prints(tmp_path: Path) -> None:
    code = f"""
import sys
from components.component import quiet_start
quiet_start()
from pipelines.beam_runner import ComponentFailedError, quiet_beam, run
from tests.pipelines.toy_pipeline import ToyConfig, toy
quiet_beam()
try:
    run(toy(), ToyConfig(fail="a", log={str(tmp_path / "log")!r}), {str(tmp_path / "root")!r})
except ComponentFailedError as error:
    sys.exit(str(error))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "a failed (ValueError): a was told to fail\n")
