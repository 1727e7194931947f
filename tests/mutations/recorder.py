"""A pytest plugin that writes down how each test ended, for a program that has to know why it failed.

    python -m pytest -p tests.mutations.recorder --outcomes=FILE tests/privacy/test_noise.py

FILE gets a line of JSON for each test: its node id, and "passed", "failed" (by an assertion), "broken" (by any other
exception, or outside of the test itself) or "skipped", with the first lines of what was said. The session is broken as
a whole where `tfdpgen` would be imported from anywhere but the folder that pytest was started in.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_MOST_CHARACTERS = 300  # of what an exception says


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", required=True, help="file that gets a line of JSON for each test")


def pytest_sessionstart(session: pytest.Session) -> None:
    spec = importlib.util.find_spec("tfdpgen")
    if spec is None or not Path(spec.origin or "").resolve().is_relative_to(session.config.rootpath.resolve()):
        raise pytest.UsageError(f"tfdpgen should be imported from {session.config.rootpath}; got {spec}.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report: Any = yield
    if report.outcome == "failed" or report.when == "call" or report.outcome == "skipped":
        outcome, said = report.outcome, ""
        if call.excinfo is not None:
            said = f"{call.excinfo.typename}: {call.excinfo.value}"
            if outcome == "failed" and (report.when != "call" or not _is_assertion(call.excinfo.value)):
                outcome = "broken"
        line = {"test": item.nodeid, "outcome": outcome, "said": said[:_MOST_CHARACTERS]}
        with Path(str(item.config.getoption("--outcomes"))).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return report


def _is_assertion(error: BaseException) -> bool:
    """Whether a test failed because something was not as it should be: by `assert`, `pytest.raises` or `pytest.fail`.

    Hypothesis raises several of them in a group.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(_is_assertion(part) for part in error.exceptions)
    return isinstance(error, AssertionError | pytest.fail.Exception)
