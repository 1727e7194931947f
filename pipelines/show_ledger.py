"""What has been spent on each data set, as a table for people: `tfdpgen ledger`.

    tfdpgen ledger                                    # output/internal/ledger.sqlite
    tfdpgen ledger internal/ledger.sqlite --delta=1e-6

Reads a ledger file and changes nothing in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_EXPLANATION = """\
Epsilon bounds what all runs on a data set together can give away about any one of its examples: 0 would be nothing,
below 1 is strong, above 10 says little. It adds up over runs (a little less than the sum) and is never given back: a
run that failed after it had reserved counts too. A data set is named by the first digits of a digest of its examples;
the same examples in another order, or a part of them, count as another data set, and then epsilons have to be added by
hand. This table is internal, as the ledger is."""


def main(arguments: Sequence[str], program: str = "python -m pipelines.show_ledger") -> int:
    """Prints the table; returns the exit status: 2 where there is no such ledger."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Shows what has been spent on each data set.",
        epilog="A ledger is kept in internal/ledger.sqlite of a run's output_dir, or where --ledger of the run says.",
    )
    parser.add_argument(
        "file",
        nargs="?",
        default="output/internal/ledger.sqlite",
        help="the ledger, or the output_dir of a run (default: %(default)s)",
    )
    parser.add_argument(
        "--delta", type=float, default=None, help="at which to add up (default: the largest that a run has used)"
    )
    flags = parser.parse_args(arguments)
    path = Path(flags.file).expanduser()
    if path.is_dir() and (path / "internal" / "ledger.sqlite").is_file():  # a run's output_dir
        path = path / "internal" / "ledger.sqlite"
    if flags.delta is not None and not 0 < flags.delta < 1:
        print(f"{program}: `--delta` should lie strictly between 0 and 1; got {flags.delta:g}.", file=sys.stderr)
        return 2
    if not path.is_file():
        print(
            f"{program}: there is no ledger {str(path)!r}; give a ledger.sqlite, or the output_dir of a run.",
            file=sys.stderr,
        )
        return 2
    try:
        print(_table(path, flags.delta))
    except ValueError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    return 0


def _table(path: Path, delta: float | None) -> str:
    """The whole text."""
    from components.component import quiet_start, quiet_tensorflow

    quiet_start()
    quiet_tensorflow()
    import dp_accounting

    from tfdpgen.privacy.accounting import epsilon_of
    from tfdpgen.privacy.ledger import read_ledger

    entries = read_ledger(path)
    if not entries:
        return f"{path} is empty: nothing has been spent."
    lines = [f"What has been spent, by {path}:"]
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        own = [entry for entry in entries if entry.dataset == dataset]
        together = dp_accounting.ComposedDpEvent([entry.event for entry in own])
        at = max(entry.delta for entry in own) if delta is None else delta
        lines += ["", f"Data set {dataset[:12]}", f"  {'when (UTC)':<19}  {'for':<30}  {'epsilon':>8}"]
        for entry in own:
            when = entry.reserved_at.replace("T", " ").removesuffix("+00:00")
            lines.append(f"  {when:<19}  {entry.purpose or '-':<30}  {epsilon_of(entry.event, at):8.3f}")
        lines.append(f"  {'':<19}  {'all together':<30}  {epsilon_of(together, at):8.3f}  at delta {at:g}")
    return "\n".join([*lines, "", _EXPLANATION])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
