from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from components import Publication
from pipelines.beam_runner import ComponentFailedError, run
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


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    for word in ("x", "y"):
        run(toy(), ToyConfig(word=word, log=str(tmp_path / "log")), tmp_path / "root")
    assert (tmp_path / "root" / "d" / "publication" / "words").read_text() == "yy"
    assert len(_ran(tmp_path / "log")) == 10


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
