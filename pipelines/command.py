"""The command `tfdpgen`: one name for everything that is done from a command line.

    tfdpgen run --dataset=digits --epsilon=3          # as python pipelines/local_run.py
    tfdpgen run --dry_run                             # what it would cost and whether it has a chance; spends nothing
    tfdpgen ledger status                             # what was spent on whose examples, and what may be
    tfdpgen lineage output/public/serving_model/1     # what it was made of, back to the data
    tfdpgen account noise --num_examples=60000 --batch_size=512 --steps=3000 --epsilon=3
    tfdpgen audit --epsilon=4 --canaries=50000
    tfdpgen kubeflow --output=pipeline.yaml

It only finds the sub-command; each has flags of its own and is imported when it is asked for, so that help and a wrong
name cost no start of TensorFlow.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence

import tfdpgen


def _run(arguments: Sequence[str], program: str) -> int | None:
    from pipelines import local_run

    return local_run.entry_point(arguments, program)


def _audit(arguments: Sequence[str], program: str) -> int | None:
    from components.component import quiet_start, quiet_tensorflow

    quiet_start()
    from tfdpgen.attacks.audit.__main__ import parse_flags, run_audits

    flags = parse_flags(arguments, program)
    quiet_tensorflow()
    return run_audits(flags)


def _account(arguments: Sequence[str], program: str) -> int | None:
    from components.component import quiet_start

    quiet_start()
    from tfdpgen.privacy.accounting.__main__ import main as account

    return account(arguments, program)


def _ledger(arguments: Sequence[str], program: str) -> int | None:
    from pipelines import ledger_command

    return ledger_command.main(arguments, program)


def _lineage(arguments: Sequence[str], program: str) -> int | None:
    from pipelines import lineage_command

    return lineage_command.main(arguments, program)


def _export(arguments: Sequence[str], program: str) -> int | None:
    from pipelines import export_command

    return export_command.main(arguments, program)


def _kubeflow(arguments: Sequence[str], program: str) -> int | None:
    from pipelines import kubeflow_run

    return kubeflow_run.entry_point(arguments, program)


_COMMANDS: Mapping[str, tuple[str, Callable[[Sequence[str], str], int | None]]] = {
    "run": ("make synthetic images from private ones, with a report; --dry_run only says what it would take", _run),
    "audit": ("test a claimed epsilon with canaries", _audit),
    "account": ("compute what a training by DP-SGD costs, or what a budget allows", _account),
    "ledger": ("open accounts for data sets, and show what was spent on them", _ledger),
    "lineage": ("show what something was made of, and what was made of it", _lineage),
    "export": ("send a run's facts to MLflow or OpenLineage", _export),
    "kubeflow": ("write the pipeline as a file for Kubeflow", _kubeflow),
}


def main(arguments: Sequence[str]) -> int:
    """Runs one sub-command and returns the exit status: 2 where there is none of that name."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"tfdpgen {tfdpgen.__version__}")
        return 0
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        print(f"tfdpgen: there is no command {name!r}; there are {', '.join(_COMMANDS)}.{meant}", file=sys.stderr)
        return 2
    return _COMMANDS[name][1](rest, f"tfdpgen {name}") or 0


def entry_point() -> None:
    """The installed command."""
    sys.exit(main(sys.argv[1:]))


def _help() -> str:
    """What there is, a line each."""
    width = max(map(len, _COMMANDS))
    return "\n".join(
        [
            "usage: tfdpgen COMMAND [--flag=value ...]",
            "",
            "Differentially private synthetic images, with a served generator and an honest report.",
            "",
            "commands:",
            *(f"  {name:{width}}  {text}" for name, (text, _) in _COMMANDS.items()),
            "",
            "tfdpgen COMMAND --help lists a command's flags; tfdpgen --version tells the version.",
        ]
    )


if __name__ == "__main__":
    entry_point()
