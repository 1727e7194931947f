"""Every mutant still fits the code, the page about the promise says what the mutants do, and some are caught here.

All of them: `make mutations`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutations.__main__ import run
from tests.mutations.mutant import AnchorError, Copy, Edit, Mutant, plant
from tests.mutations.promise import named_tests, table, table_in
from tests.mutations.registry import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
_PROMISE = ROOT / "docs" / "promise.md"

every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@every_mutant
def test_its_anchors_are_in_the_code_and_what_it_makes_is_a_program(mutant: Mutant) -> None:
    texts = {edit.path: (ROOT / edit.path).read_text() for edit in mutant.edits}
    for edit in mutant.edits:
        texts[edit.path] = edit.applied(texts[edit.path])
    for path, text in texts.items():
        assert text != (ROOT / path).read_text()
        compile(text, path, "exec")


def test_names_are_unique_and_every_test_that_is_named_exists() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 22
    assert {mutant.rule for mutant in MUTANTS} == set(range(1, 8))  # the eighth sentence is about these tests
    named = {test.partition("[")[0] for mutant in MUTANTS for test in mutant.caught_by}
    unknown = sorted(test for test in named | named_tests(_PROMISE.read_text()) if not _exists(test))
    assert not unknown


def _exists(test: str) -> bool:
    """Whether there is such a test in the file."""
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text()) if (ROOT / path).is_file() else ast.Module([], [])
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def test_the_page_holds_the_table_of_the_mutants() -> None:
    assert table_in(_PROMISE) == table(MUTANTS), "print the table by `python -m tests.mutations --table`"
    assert f"{len(MUTANTS)} mutants" in _PROMISE.read_text()
    for rule in range(1, 9):
        assert re.search(rf"^## {rule}\. ", _PROMISE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["one_step_more_runs", "means_divided_by_true_counts"])
def test_real_mutants_are_caught_end_to_end(name: str) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    (verdict,) = run([mutant], ROOT, workers=1)
    assert (verdict.outcome, verdict.mutant) == ("caught", mutant), verdict.said


# The machinery itself, on a package of one function.


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    for folder in ("tfdpgen", "tests/mutations"):
        (root / folder).mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib']\n")
    (root / "tfdpgen" / "__init__.py").write_text("def add(a, b):\n    return a + b\n")
    recorder = Path(__file__).with_name("recorder.py").read_text()
    (root / "tests" / "mutations" / "recorder.py").write_text(recorder)
    (root / "tests" / "test_add.py").write_text(
        "import pytest\nimport tfdpgen\n\n\n"
        "def test_add():\n    assert tfdpgen.add(2, 3) == 5\n\n\n"
        "@pytest.mark.parametrize('b', [0, 1])\ndef test_order(b):\n    assert tfdpgen.add(1, b) == tfdpgen.add(b, 1)\n"
        "\n\ndef test_wrong():\n    assert tfdpgen.add(2, 3) == 6\n"
    )
    return root


@pytest.fixture(scope="module")
def copy(toy: Path) -> Iterator[Copy]:
    with Copy(toy) as made:
        yield made


def _toy_mutant(after: str, *tests: str, before: str = "a + b") -> Mutant:
    edit = Edit("tfdpgen/__init__.py", before, after)
    return Mutant("toy", 1, "", "", (edit,), tuple(f"tests/test_add.py::{test}" for test in tests))


@pytest.mark.parametrize(
    ("after", "tests", "outcome", "said"),
    [
        ("a - b", ["test_add"], "caught", "AssertionError"),
        ("a - b", ["test_order"], "caught", "AssertionError"),  # by one of its two parameters
        ("a - b", ["test_add", "test_order[1]"], "survived", "1 of 2 tests passed"),
        ("b + a", ["test_add"], "survived", "1 of 1 tests passed"),
        ("a + c", ["test_add"], "broken", "NameError"),
        ("a +", ["test_add"], "broken", "did not run"),
        ("a - b", ["test_of_nothing"], "broken", "did not run"),
    ],
)
def test_only_an_assertion_catches_a_mutant(copy: Copy, after: str, tests: list[str], outcome: str, said: str) -> None:
    verdict = copy.verdict(_toy_mutant(after, *tests))
    assert verdict.outcome == outcome
    assert said in verdict.said


def test_a_test_that_fails_without_the_mutant_proves_nothing(copy: Copy, toy: Path) -> None:
    assert set(copy.failures(["tests/test_add.py::test_add", "tests/test_add.py::test_wrong"])) == {
        "tests/test_add.py::test_wrong"
    }
    (verdict,) = run([_toy_mutant("a - b", "test_wrong")], toy, workers=1)
    assert verdict.outcome == "broken"
    assert "fails without it too" in verdict.said


def test_a_mutant_whose_text_is_gone_is_an_error(copy: Copy, toy: Path) -> None:
    for before, count in (("a * b", 0), ("a", 3)):
        mutant = _toy_mutant("a - b", "test_add", before=before)
        with pytest.raises(AnchorError, match=f"holds {count} times"):
            plant(mutant, toy)
        with pytest.raises(AnchorError, match=f"holds {count} times"):
            copy.verdict(mutant)
    assert (toy / "tfdpgen" / "__init__.py").read_text() == "def add(a, b):\n    return a + b\n"
