"""Private labelled images in; a synthetic data set, a served generator and an honest report out, on this machine.

    python pipelines/local_run.py                                              # the UCI digits, epsilon 3
    python pipelines/local_run.py --dataset=mnist --method=dp_gan --epsilon=1 --output_dir=out
    python pipelines/local_run.py --dataset=scans.npz --num_classes=4 -- --runner=FlinkRunner

Flags after a bare -- go to Beam. Exits 0 when everything is in output_dir, 1 when a component failed, and 2 on a bad
flag or where something is in the way, before anything has run. What fails after the training says how to go on:

    python pipelines/local_run.py --start_at=evaluate
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import itertools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from absl import app, flags, logging

from components.artifacts import ArtifactError, TrainedRelease
from components.component import one_line, quiet_start
from components.destination import DestinationError, check_destination
from pipelines.config import PAID, PATH_FIELDS, STARTS, SynthesisConfig, default_index, default_ledger
from pipelines.resuming import ResumeError, RootError, check_root
from tfdpgen.files import FolderInUseError, remove

_ConfigT = TypeVar("_ConfigT")


def flags_parser(
    config: type[_ConfigT], description: str, program: str | None = None
) -> Callable[[list[str]], _ConfigT]:
    """For `app.run`: parses flags into a dataclass; a bad flag ends the program with one line and exit code 2.

    Args:
      config: the dataclass; each field is a flag.
      description: the first lines of the help.
      program: what the user has called, as `tfdpgen run`; None: the name of the script.
    """
    from etils import eapp

    usage, epilog = "%(prog)s [--flag=value ...]", "--verbosity=1 shows the traceback of a failure."
    if "beam_args" in {field.name for field in dataclasses.fields(cast(Any, config))}:
        usage += " [-- Beam flags ...]"
    parse = eapp.make_flags_parser(
        config, prog=program, description=description, usage=usage, epilog=epilog, allow_abbrev=False
    )

    def parser(argv: list[str]) -> _ConfigT:
        script, *own = argv
        own, beam_args = (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])
        try:
            for before, argument in itertools.pairwise([script, *own]):
                if argument[0:1] != "-" and (before[0:2] != "--" or "=" in before):
                    raise ValueError(f"unexpected argument {argument!r}: flags have the form --flag=value.")
            _check_names(own, config)
            if beam_args:
                own.append(f"--beam_args={shlex.join(beam_args)}")
            return cast(_ConfigT, parse([script, *own]))
        except (ValueError, flags.Error) as error:
            print(f"{program or Path(script).name}: {one_line(error)}", file=sys.stderr)
            sys.exit(2)

    return parser


def _check_names(arguments: Sequence[str], config: type) -> None:
    """Refuses an unknown flag at once: it would be found only after the settings, which take longer to check.

    Raises:
      ValueError: for a flag that is none; the message suggests one that is spelt nearly so.
    """
    known = {"help", *flags.FLAGS, *(field.name for field in dataclasses.fields(cast(Any, config)))}
    for argument in arguments:
        name = argument[2:].split("=")[0]
        if argument[:2] == "--" and not {name, name.removeprefix("no")} & known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f". Did you mean --{near[0]}?" if near else ""
            raise ValueError(f"Unknown command line flag {name!r}{meant}")


def run(config: SynthesisConfig, *, verbose: bool = False, command: str = "") -> None:
    """Runs the pipeline and says where the results are, or, with `dry_run`, only what it would take.

    Args:
      config: the settings.
      verbose: shows the traceback of a failure.
      command: how the user has called this, for the command that is suggested; empty: as this script was.

    Raises:
      SystemExit: with a line that names the component that failed and its cause, and the command that goes on from
        there where a training is paid for; with exit code 2 where nothing has run, since something is in the way.
    """
    name = command or Path(sys.argv[0]).name
    asked, command = dataclasses.replace(config, dry_run=False), command or called_as()
    config = absolute(config)
    output_dir = Path(config.output_dir)
    try:
        check_destination(output_dir)
        check_root(output_dir / "internal")
        check_weights(config.inception_weights)
        if config.dry_run:
            # Without a cache that was not asked for, since it would be left in the folder of artifacts.
            _dry_run(config if asked.cache else dataclasses.replace(config, cache=""), verbose=verbose)
            print(f"Dry run: nothing was reserved, and no file is left. To go on: {command_line(asked, command)}")
            return
        before = _training(output_dir)
        _run(asked, config, verbose, command)
    except (
        ArtifactError,
        DestinationError,
        FileNotFoundError,
        FolderInUseError,
        PermissionError,
        ResumeError,
        RootError,
    ) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    summary = json.loads((output_dir / "summary.json").read_text())
    if config.backup and (reservation := (summary.get("ledger") or {}).get("reservation")):
        from tfdpgen.privacy import Backup

        Backup.of_finished(config.backup, reservation)
    print(describe(summary, output_dir))
    if before is not None and before == _training(output_dir):
        print("Nothing was spent on training examples by this run: the training was kept.")
    if (held := (summary.get("ledger") or {}).get("address")) and held != config.ledger:
        print(f"The training is in the ledger {held}, and {config.ledger} knows nothing of it.")


def _run(asked: SynthesisConfig, config: SynthesisConfig, verbose: bool, command: str) -> None:
    """Runs the pipeline as `config` says; `asked` is what the user has typed."""
    from pipelines import beam_runner
    from pipelines.synthesis import SYNTHESIS

    root = Path(config.output_dir) / "internal"
    if not verbose:
        beam_runner.quiet_beam()

    def warning(differences: list[str]) -> str:
        why = ", ".join(differences) or "the data, or the version of tfdpgen, are others"
        return (
            f"{root} holds a training that is paid for. This run trains anew, since "
            f"{'--nocache asks for it' if config.nocache else why}, and spends budget again; the earlier training, and "
            "what was published of it, are replaced once the new one is finished."
        )

    try:
        beam_runner.run(
            SYNTHESIS,
            config,
            root,
            beam_args=shlex.split(config.beam_args),
            start_at=config.start_at,
            paid=PAID,
            anew=config.nocache,
            warning=warning,
            index=default_index(),
        )
    except beam_runner.ComponentFailedError as error:
        details = error.details.read_text() if verbose else f"Traceback: {error.details}, or --verbosity=1"
        lines = [details, str(error)] if verbose else [str(error)] if error.is_refusal else [str(error), details]
        if error.step in STARTS:
            lines.append(
                "The training is kept and paid for. To go on from there, without training again:\n"
                f"    {command_line(dataclasses.replace(asked, nocache=False), command)}"
            )
        elif error.step == PAID and config.backup and any(Path(config.backup).glob("step-*")):
            lines.append(
                f"What was reserved stays reserved, and {config.backup} keeps the progress. To go on from there, "
                f"without paying again:\n    {command_line(asked, command)}"
            )
        sys.exit("\n".join(lines))


def _training(output_dir: Path) -> str | None:
    """The id of the training that lies there; None where there is none."""
    try:
        return TrainedRelease.open(output_dir / "internal" / PAID / "release").id
    except ArtifactError:
        return None


def check_weights(weights: str) -> None:
    """Raises a FileNotFoundError where there is no file with InceptionV3's weights, which evaluate would ask for."""
    if weights not in ("", "keras") and not Path(weights).is_file():
        raise FileNotFoundError(f"`inception_weights` should be a file, or keras; there is none at {weights}.")


def absolute(config: SynthesisConfig) -> SynthesisConfig:
    """The configuration with `~` expanded in every path, and the places of results and of what is kept filled in."""
    paths = {name: os.path.expanduser(getattr(config, name)) for name in PATH_FIELDS}
    output_dir = Path(paths["output_dir"]).absolute()
    kept = {name: Path(paths[name]).absolute() if paths[name] else None for name in ("backup", "cache")}
    ledger = paths["ledger"] or default_ledger()
    paths |= {
        "output_dir": str(output_dir),
        "ledger": ledger if "://" in ledger else str(Path(ledger).absolute()),
        "backup": str(kept["backup"] or output_dir / "internal" / "backup"),
        "cache": str(kept["cache"] or output_dir / "internal" / "cache"),
    }
    if config.insecure_reproducible and not config.backup:
        # Seeded noise cannot be resumed: a backup that was asked for all the same is refused by the training.
        paths["backup"] = ""
    return dataclasses.replace(config, **paths)


def called_as() -> str:
    """How this script was called: the interpreter, by its name where the PATH has it, and the script."""
    python = Path(sys.executable).name
    return shlex.join([python if shutil.which(python) == sys.executable else sys.executable, sys.argv[0]])


def _dry_run(config: SynthesisConfig, *, verbose: bool) -> None:
    """Runs ingest and preflight in a folder of their own, which is removed, so that an earlier run stays as it is.

    Raises:
      SystemExit: as `run` does.
    """
    from pipelines import beam_runner
    from pipelines.synthesis import SYNTHESIS

    if not verbose:
        beam_runner.quiet_beam()
    output_dir = Path(config.output_dir)
    root = output_dir.with_name(f".{output_dir.name}.dry_run")
    with contextlib.ExitStack() as stack:
        stack.callback(remove, root)
        try:
            beam_runner.run(SYNTHESIS.until("preflight"), config, root, beam_args=shlex.split(config.beam_args))
        except beam_runner.ComponentFailedError as error:
            details = f"\n{error.details.read_text()}" if verbose else ""
            sys.exit(f"{details}{error}")
        except (FolderInUseError, RootError):
            stack.pop_all()  # the folder is another run's, or the user's
            raise


def command_line(config: SynthesisConfig, command: str) -> str:
    """The command that runs with these settings: the flags that differ from their defaults, quoted for a shell."""
    flags = [
        f"--{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]
    return " ".join([command, *map(shlex.quote, flags)])


def _counted(summary: dict[str, Any]) -> str:
    """What the promise is made to."""
    return "training users" if summary["privacy"]["unit"].startswith("one user") else "training examples"


def describe(summary: dict[str, Any], output_dir: Path) -> str:
    """The outcome in a few lines."""
    privacy, utility = summary["privacy"], summary["utility"]
    balanced = utility["balanced"]
    lines = [
        "",
        f"Results: {output_dir} (report.html and summary.json, which are internal)",
        f"To hand out: {output_dir / 'public'}, and nothing else (synthetic/, serving_model/, report_public.html, "
        "privacy.json)"
        if summary["release"]
        else f"Not to be handed out: {output_dir / 'not_for_release'}",
        (
            "Privacy: "
            if summary["release"]
            else "NOT FOR RELEASE: the noise was seeded (insecure_reproducible). With secret noise it would be "
        )
        + f"epsilon {privacy['epsilon']:.3f} at delta {privacy['delta']:g} "
        f"for each of {summary['num_examples']} {_counted(summary)}",
        f"Utility: accuracy on private test examples {_rate(utility['p2'])} when trained on synthetic examples (p2), "
        f"{_rate(utility['p1'])} on private ones (p1); balanced accuracy {_rate(balanced['p2'])} and "
        f"{_rate(balanced['p1'])}",
    ]
    missing = [name for name in ("p1", "p2") if utility[name] is None]
    missing += [name for name, metrics in utility["classifiers"].items() if metrics["not_measured"]]
    if missing:
        lines.append(f"Not measured, wholly or in part: {', '.join(missing)} (report.html says why)")
    lines[4:4] = _accounts(summary)
    lines += [f"Caution: {caution}" for caution in utility["cautions"]]
    for name, metrics in summary["attacks"].items():
        lines.append(
            f"Attack {name}: accuracy {metrics['accuracy']:.3f}, privacy loss {metrics['privacy_loss']:.3f}, "
            f"AUC {metrics['auc']:.3f}"
            + (
                ""
                if metrics.get("is_membership", True)
                else " (not about membership: tells private examples from noise)"
            )
        )
    if audit := summary.get("audit"):
        lines.append(
            f"Audit {audit['adversary']}: epsilon is at least {audit['lower_bound']:.3f} of the "
            f"{audit['claimed_epsilon']:.3f} claimed, at {audit['confidence']:.0%} confidence"
        )
    lines.append("Utility, attack and audit metrics are internal: they are computed on private examples without noise.")
    return "\n".join(lines)


def _accounts(summary: dict[str, Any]) -> list[str]:
    """What all runs have come to, and what test examples have paid, a line each."""
    ledger, published = summary.get("ledger") or {}, summary.get("published_metrics")
    lines = [
        f"Ledger: all runs on these examples have come to {account['spent']:.3g} of {account['total']['epsilon']:g} at "
        f"delta {account['total']['delta']:g} with this training (account {account['name']!r})"
        for account in ledger.get("accounts", ())
    ]
    if published:
        lines.append(
            f"Published accuracies: epsilon {published['epsilon']:.3g} at delta {published['delta']:g} for each of "
            f"{published['num_examples']} test examples, beside the training's"
        )
    return lines


def _rate(value: float | None) -> str:
    """A rate to three decimals."""
    return "not measured" if value is None else f"{value:.3f}"


def main(config: SynthesisConfig, command: str = "") -> None:
    """Runs with the parsed flags."""
    if flags.FLAGS.verbosity <= logging.INFO:  # app.run's default, at which every library tells what it does
        logging.set_verbosity(logging.ERROR)
    run(config, verbose=flags.FLAGS.verbosity > 0, command=command)


def entry_point(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """The command line; it does not return.

    Args:
      arguments: flags; by default those that the script was called with.
      program: what help and messages call it; by default the script's name.
    """
    quiet_start()
    parser = flags_parser(SynthesisConfig, (__doc__ or "").partition("\n")[0], program)
    started = functools.partial(main, command=program) if program else main
    try:
        app.run(started, argv=None if arguments is None else [program or sys.argv[0], *arguments], flags_parser=parser)
    except KeyboardInterrupt:
        print(f"{program or Path(sys.argv[0]).name}: interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    entry_point()
