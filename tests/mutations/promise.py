"""The table of `docs/promise.md`: each mutant, what it breaks, who had it, and what catches it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.mutant import Mutant

START, END = "<!-- mutants: start -->", "<!-- mutants: end -->"
_HEAD = "| mutant | rule | what is wrong | who had it | caught by |\n|---|---|---|---|---|"


def table(mutants: Sequence[Mutant]) -> str:
    """A table in Markdown, ordered by rule."""
    rows = []
    for mutant in sorted(mutants, key=lambda mutant: mutant.rule):
        catchers = "<br>".join(f"`{test}`" for test in mutant.caught_by)
        rows.append(f"| `{mutant.name}` | {mutant.rule} | {mutant.bug} | {mutant.had_by} | {catchers} |")
    return "\n".join([_HEAD, *rows])


def table_in(page: Path) -> str:
    """The table that a page holds between its two marks."""
    return page.read_text().partition(START)[2].partition(END)[0].strip()


def named_tests(text: str) -> set[str]:
    """The tests that a text names, as `path::test`."""
    return set(re.findall(r"tests/[\w/]+\.py::\w+", text))
