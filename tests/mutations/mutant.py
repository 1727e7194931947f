"""Mutants: bugs that are planted one at a time in a copy of the package, and the tests that have to catch them.

    mutant = Mutant(
        name="half_the_noise",
        rule=1,
        bug="The noise has half of the declared standard deviation.",
        had_by="class of bug",
        edits=(Edit("tfdpgen/privacy/optimizer.py", "self._stddev)", "self._stddev / 2)"),),
        caught_by=("tests/privacy/test_optimizer.py::test_the_noise_has_the_declared_scale",),
    )
    with Copy(repository) as copy:                       # of what is on disk now, once for many mutants
        copy.passes(mutant.caught_by)                    # the tests pass as long as nothing is planted
        copy.verdict(mutant)                             # Verdict(outcome="caught", ...)

A mutant is caught if each of its tests fails by an assertion. A test that cannot be run, or ends with any other
exception, proves nothing, and neither does one that fails without the mutant.

Source: DeMillo, Lipton & Sayward 1978, "Hints on test data selection: help for the practicing programmer".
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import pytest

COPIED = ("tfdpgen", "components", "pipelines", "benchmarks", "tests", "docs", "pyproject.toml")
_SECONDS = 480  # after which a run of tests is given up
_PROCESSES = multiprocessing.get_context("forkserver")

Outcome = Literal["caught", "survived", "broken"]


class AnchorError(ValueError):
    """The text that a mutant replaces is not found exactly once: the code moved on, and the mutant has to follow."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """A replacement in one file.

    Attributes:
      path: of the file, from the repository's root.
      before: text that occurs exactly once.
      after: what stands in its place.
    """

    path: str
    before: str
    after: str

    def applied(self, text: str) -> str:
        """The file's text with the replacement.

        Raises:
          AnchorError: if `before` does not occur exactly once.
        """
        if (count := text.count(self.before)) != 1:
            raise AnchorError(f"{self.path} should hold once, and holds {count} times: {self.before!r}.")
        return text.replace(self.before, self.after)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A bug and what catches it.

    Attributes:
      name: for the command line.
      rule: number of the sentence of the promise (`docs/promise.md`) that it breaks.
      bug: what is wrong then, and whom it harms.
      had_by: a library or paper that had it, or "class of bug".
      edits: what plants it.
      caught_by: pytest node ids; one without brackets stands for all its parameters, of which one failure is enough.
    """

    name: str
    rule: int
    bug: str
    had_by: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
      mutant: which one.
      outcome: "caught", "survived", or "broken" where nothing was proven.
      said: what its tests said.
      seconds: that it took.
    """

    mutant: Mutant
    outcome: Outcome
    said: str
    seconds: float


class Copy:
    """A copy of a repository, from which mutants are made; a context manager that removes it.

    Args:
      repository: its root.
    """

    def __init__(self, repository: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
        _copy(repository, self._folder / "original")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def failures(self, tests: Iterable[str]) -> Mapping[str, str]:
        """Those of the tests that do not pass without any mutant, with what they said."""
        tests = sorted(set(tests))
        outcomes = _run(self._folder / "original", tests)
        return {
            test: "; ".join(said for _, said in ended) or "did not run"
            for test, ended in ((test, _ended(test, outcomes)) for test in tests)
            if not ended or any(outcome != "passed" for outcome, _ in ended)
        }

    def verdict(self, mutant: Mutant) -> Verdict:
        """Plants the mutant in a copy of its own and runs its tests there.

        Raises:
          AnchorError: if it cannot be planted.
        """
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            _copy(self._folder / "original", Path(folder) / "mutant")
            plant(mutant, Path(folder) / "mutant")
            outcomes = _run(Path(folder) / "mutant", mutant.caught_by)
        outcome, said = _judged([_ended(test, outcomes) for test in mutant.caught_by])
        return Verdict(mutant, outcome, said, time.monotonic() - started)


def plant(mutant: Mutant, repository: Path) -> None:
    """Makes the mutant's edits in a repository, which should be a copy.

    Raises:
      AnchorError: if one of them does not fit.
    """
    for edit in mutant.edits:
        path = repository / edit.path
        path.write_text(edit.applied(path.read_text()))


def _judged(tests: Sequence[Sequence[tuple[str, str]]]) -> tuple[Outcome, str]:
    """The verdict on a mutant from how each of its tests ended, for every set of parameters."""
    said = [said for ended in tests for outcome, said in ended if outcome != "passed"]
    if any(not ended for ended in tests):
        return "broken", "; ".join(said) or "a test did not run"
    ends = [{outcome for outcome, _ in ended} for ended in tests]
    if any(ended - {"passed", "failed"} for ended in ends):
        return "broken", "; ".join(said)
    if all("failed" in ended for ended in ends):
        return "caught", said[0]
    return "survived", f"{sum('failed' not in ended for ended in ends)} of {len(ends)} tests passed"


def _ended(test: str, outcomes: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """How a test ended, once for each set of parameters."""
    return [
        (line["outcome"], line["said"])
        for line in outcomes
        if line["test"] == test or line["test"].startswith(f"{test}[")
    ]


def _run(repository: Path, tests: Sequence[str]) -> list[Mapping[str, str]]:
    """Runs tests in a process of their own; what is returned lacks those that did not come to an end."""
    _PROCESSES.set_forkserver_preload(["tests.mutations.imports"])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "outcomes.jsonl"
        process = _PROCESSES.Process(target=_session, args=(repository, tests, report))
        process.start()
        process.join(_SECONDS)
        process.kill()
        process.join()
        return [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []


def _session(repository: Path, tests: Sequence[str], report: Path) -> None:
    """What such a process does: pytest in the copy, whose modules are not those of the repository it was started in."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
        del sys.modules[name]
    sys.path[:] = [str(repository), *(path for path in sys.path if not (Path(path or ".") / "tfdpgen").is_dir())]
    os.chdir(repository)
    command = ["-n", "0", "-q", "-p", "no:cacheprovider", "-p", "tests.mutations.recorder"]
    pytest.main([*command, f"--outcomes={report}", *tests])
    os._exit(0)  # past TensorFlow's own ending, which may wait for threads


def _copy(source: Path, target: Path) -> None:
    """Copies what the tests of a package need."""
    target.mkdir(parents=True)
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (source / name).exists():
            shutil.copy2(source / name, target / name)
