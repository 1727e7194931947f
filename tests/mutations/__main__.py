"""Plants every mutant, one at a time, and prints which test caught it.

python -m tests.mutations                            # all of them; exit status 1 if one is not caught
python -m tests.mutations --only=half_the_noise      # one; may be given several times
python -m tests.mutations --table                    # the table of docs/promise.md
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.mutant import AnchorError, Copy, Mutant, Verdict
from tests.mutations.promise import table
from tests.mutations.registry import MUTANTS

_REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Runs what the arguments ask for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=(__doc__ or "").split("\n\n")[0])
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="one mutant, by name")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="at the same time (default: cores)")
    parser.add_argument("--table", action="store_true", help="print the table of docs/promise.md, and plant nothing")
    flags = parser.parse_args(arguments)
    if flags.table:
        print(table(MUTANTS))
        return 0
    chosen = [mutant for mutant in MUTANTS if not flags.only or mutant.name in flags.only]
    started = time.monotonic()
    verdicts = run(chosen, _REPOSITORY, flags.workers)
    caught = sum(verdict.outcome == "caught" for verdict in verdicts)
    print(f"{caught} of {len(chosen)} mutants caught in {time.monotonic() - started:.0f} s.")
    return 0 if caught == len(chosen) else 1


def run(mutants: Sequence[Mutant], repository: Path, workers: int) -> list[Verdict]:
    """Plants the mutants in copies of the repository, `workers` at a time, and prints a line for each."""
    with Copy(repository) as copy, concurrent.futures.ThreadPoolExecutor(workers) as pool:
        tests = sorted({test for mutant in mutants for test in mutant.caught_by})
        files = sorted({test.partition("::")[0] for test in tests})
        parts = [[test for test in tests if test.partition("::")[0] in files[i::workers]] for i in range(workers)]
        failing: dict[str, str] = {}
        for failures in pool.map(copy.failures, [part for part in parts if part]):
            failing.update(failures)
        for test, said in failing.items():
            print(f"WITHOUT ANY MUTANT {test} does not pass: {said}", flush=True)

        def judge(mutant: Mutant) -> Verdict:
            if unfit := [test for test in mutant.caught_by if test in failing]:
                return Verdict(mutant, "broken", f"{unfit[0]} fails without it too", 0.0)
            try:
                return copy.verdict(mutant)
            except AnchorError as error:
                return Verdict(mutant, "broken", str(error), 0.0)

        verdicts = []
        width = max(len(mutant.name) for mutant in mutants)
        for done in concurrent.futures.as_completed([pool.submit(judge, mutant) for mutant in mutants]):
            verdict = done.result()
            verdicts.append(verdict)
            said = " ".join(verdict.said.split())[:100]
            print(f"{verdict.outcome:8} {verdict.mutant.name:{width}} {verdict.seconds:5.0f} s  {said}", flush=True)
    return verdicts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
