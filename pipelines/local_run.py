"""Private labelled images in; a synthetic data set, a served generator and an honest report out, on this machine.

    python pipelines/local_run.py                                              # the UCI digits, epsilon 3
    python pipelines/local_run.py --dataset=mnist --synthesizer=dp_gan --epsilon=1 --output_dir=out
    python pipelines/local_run.py --dataset=scans.npz --num_classes=4 -- --runner=FlinkRunner

Flags after a bare -- go to Beam. Exits 0 when everything is in output_dir, 1 when a component failed, and 2 on a bad
flag, before anything has run.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from absl import app, flags, logging

from components.component import one_line, quiet_start
from pipelines.config import SynthesisConfig

_ConfigT = TypeVar("_ConfigT")


def flags_parser(config: type[_ConfigT], description: str) -> Callable[[list[str]], _ConfigT]:
    """For `app.run`: parses flags into a dataclass; a bad flag ends the program with one line and exit code 2."""
    from etils import eapp

    usage, epilog = "%(prog)s [--flag=value ...]", "--verbosity=1 shows the traceback of a failure."
    if "beam_args" in {field.name for field in dataclasses.fields(cast(Any, config))}:
        usage += " [-- Beam flags ...]"
    parse = eapp.make_flags_parser(config, description=description, usage=usage, epilog=epilog, allow_abbrev=False)

    def parser(argv: list[str]) -> _ConfigT:
        program, *own = argv
        own, beam_args = (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])
        try:
            for before, argument in itertools.pairwise([program, *own]):
                if argument[0:1] != "-" and (before[0:2] != "--" or "=" in before):
                    raise ValueError(f"unexpected argument {argument!r}: flags have the form --flag=value.")
            if beam_args:
                own.append(f"--beam_args={shlex.join(beam_args)}")
            return cast(_ConfigT, parse([program, *own]))
        except (ValueError, flags.Error) as error:
            print(f"{Path(program).name}: {one_line(error)}", file=sys.stderr)
            sys.exit(2)

    return parser


def run(config: SynthesisConfig, *, verbose: bool = False) -> None:
    """Runs the pipeline and says where the results are.

    Raises:
      SystemExit: with a line that names the component that failed and its cause.
    """
    from pipelines import beam_runner
    from pipelines.synthesis import SYNTHESIS

    output_dir = Path(config.output_dir).expanduser().absolute()
    ledger = Path(config.ledger).expanduser().absolute() if config.ledger else output_dir / "internal" / "ledger.sqlite"
    backup = Path(config.backup).expanduser().absolute() if config.backup else output_dir / "internal" / "backup"
    config = dataclasses.replace(
        config,
        output_dir=str(output_dir),
        ledger=str(ledger),
        # Seeded noise cannot be resumed: a backup that was asked for all the same is refused by the training.
        backup="" if config.insecure_reproducible and not config.backup else str(backup),
    )
    if not verbose:
        beam_runner.quiet_beam()
    try:
        beam_runner.run(SYNTHESIS, config, output_dir / "internal", beam_args=shlex.split(config.beam_args))
    except beam_runner.ComponentFailedError as error:
        details = error.details.read_text() if verbose else f"Traceback: {error.details}, or --verbosity=1"
        sys.exit(f"{details}\n{error}" if verbose else f"{error}\n{details}")
    print(describe(json.loads((output_dir / "summary.json").read_text()), output_dir))


def describe(summary: dict[str, Any], output_dir: Path) -> str:
    """The outcome in a few lines."""
    privacy, utility = summary["privacy"], summary["utility"]
    balanced = utility["balanced"]
    lines = [
        "",
        f"Results: {output_dir} (report.html, summary.json, synthetic/, serving_model/)",
        f"Privacy: epsilon {privacy['epsilon']:.3f} at delta {privacy['delta']:g} "
        f"for each of {summary['num_examples']} training rows",
        f"Utility: accuracy on private test rows {_rate(utility['p2'])} when trained on synthetic rows (p2), "
        f"{_rate(utility['p1'])} on private ones (p1); balanced accuracy {_rate(balanced['p2'])} and "
        f"{_rate(balanced['p1'])}",
    ]
    missing = [name for name in ("p1", "p2") if utility[name] is None]
    missing += [name for name, figures in utility["classifiers"].items() if figures["not_measured"]]
    if missing:
        lines.append(f"Not measured, wholly or in part: {', '.join(missing)} (report.html says why)")
    lines += [f"Caution: {caution}" for caution in utility["cautions"]]
    for name, figures in summary["attacks"].items():
        lines.append(
            f"Attack {name}: accuracy {figures['accuracy']:.3f}, privacy loss {figures['privacy_loss']:.3f}, "
            f"AUC {figures['auc']:.3f}"
        )
    if audit := summary.get("audit"):
        lines.append(
            f"Audit {audit['adversary']}: epsilon is at least {audit['lower_bound']:.3f} of the "
            f"{audit['claimed_epsilon']:.3f} claimed, at {audit['confidence']:.0%} confidence"
        )
    lines.append("Utility, attack and audit figures are internal: they are computed on private rows without noise.")
    if not summary["release"]:
        lines.append("NOT FOR RELEASE: the privacy noise was seeded (insecure_reproducible).")
    return "\n".join(lines)


def _rate(value: float | None) -> str:
    """A rate to three decimals."""
    return "not measured" if value is None else f"{value:.3f}"


def main(config: SynthesisConfig) -> None:
    """Runs with the parsed flags."""
    if flags.FLAGS.verbosity <= logging.INFO:  # app.run's default, at which every library tells what it does
        logging.set_verbosity(logging.ERROR)
    run(config, verbose=flags.FLAGS.verbosity > 0)


def entry_point() -> None:
    """The command line."""
    quiet_start()
    app.run(main, flags_parser=flags_parser(SynthesisConfig, (__doc__ or "").partition("\n")[0]))


if __name__ == "__main__":
    entry_point()
