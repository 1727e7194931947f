"""The ledger on the command line: `tfdpgen ledger`, for whoever owns the data.

    tfdpgen ledger open --dataset=scans.csv --image_shape=28,28,1 --epsilon=8 --name=scans     # once, before any run
    tfdpgen ledger status                                                # what every account has come to
    tfdpgen ledger history                                               # what happened, in order
    tfdpgen ledger limit scans --epsilon=10 --reason="board, 3 May"      # another total
    tfdpgen ledger join scans thumbnails --reason="the same patients"    # data sets that belong together
    tfdpgen ledger void 3f2c... --reason="never began"                   # what was reserved and has not run
    tfdpgen ledger export > ledger.json                                  # everything but the key and digests
    tfdpgen ledger verify --head=5a1e...                                 # whether it was changed by something else

Exits 0, 1 where a ledger was tampered with or cannot be used, and 2 on a bad flag. docs/ledger.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.config import SynthesisConfig, default_ledger

if TYPE_CHECKING:
    from tfdpgen.privacy import Ledger, Reservation, Standing

_DATA = (
    "data_dir",
    "image_shape",
    "num_classes",
    "value_range",
    "classes",
    "resize",
    "background",
    "on_disk",
    "user_column",
    "users",
)  # flags of a run that say which images there are
_EXPLANATION = """\
Epsilon bounds what all runs together can give away about any one example, or person where an account is of users: 0
would be nothing, below 1 is strong, above 10 says little. It adds up over runs, to a little less than the sum, and is
never given back: a run that failed after it had reserved counts too. This is internal, as the ledger is."""


def main(arguments: Sequence[str], program: str = "python -m pipelines.ledger_command") -> int:
    """Runs one sub-command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="What was spent on whose examples, and what may be.",
        allow_abbrev=False,
        epilog="docs/ledger.md says what accounts are, and what they do not see.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, text, add) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        command.add_argument(
            "--ledger", default="", help="file or database address (default: this user's own, the one that runs use)"
        )
        add(command)
    flags = parser.parse_args(arguments)

    from components.component import one_line, quiet_start, quiet_tensorflow

    quiet_start()
    quiet_tensorflow()
    from tfdpgen.privacy import Ledger, LedgerError, TamperedError

    try:
        ledger = Ledger(flags.ledger or default_ledger(), create=flags.command == "open")
        print(_COMMANDS[flags.command][0](ledger, flags))
    except (LedgerError, TamperedError) as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _open(ledger: Ledger, flags: argparse.Namespace) -> str:
    from components.ingest import declared
    from tfdpgen.data import load_splits
    from tfdpgen.privacy import Identity, PrivacyBudget

    facts = declared(
        flags.image_shape, flags.num_classes, flags.value_range, flags.classes, flags.resize, flags.background
    )
    total = PrivacyBudget(flags.epsilon, flags.delta)
    splits = load_splits(
        flags.dataset,
        data_dir=flags.data_dir or None,
        **dataclasses.asdict(facts),
        on_disk=flags.on_disk,
        user_column=flags.user_column,
        users=flags.users,
        verbose=False,
    )
    parts = [ledger.identity(part) for part in (splits.train, splits.holdout, splits.test) if len(part)]
    account = ledger.open(Identity.together(parts), total, name=flags.name or flags.dataset, unit=flags.unit)
    return f"Opened in {ledger.address}:\n{_account(ledger, account)}"


def _status(ledger: Ledger, flags: argparse.Namespace) -> str:
    accounts = ledger.standings()
    if not accounts:
        return f"{ledger.address} has no accounts: nothing was spent."
    return "\n\n".join(
        [f"Accounts of {ledger.address}:", *(_account(ledger, account) for account in accounts), _EXPLANATION]
    )


def _account(ledger: Ledger, account: Standing) -> str:
    """One account, for people."""
    total, fits = account.total, ledger.fitting(account.name)
    unfinished = [
        entry for entry in ledger.reservations() if entry.state == "reserved" and account.name in entry.accounts
    ]
    each = "person (user)" if account.unit == "user" else "example"
    lines = [
        f"{account.name}",
        f"  examples      {account.num_examples:,}",
        f"  may cost      epsilon {total.epsilon:g} at delta {total.delta:g}, for every {each}, in all runs together",
        f"  has cost      epsilon {account.spent:.3f} in {account.runs} run{'s' * (account.runs != 1)}, for the {each} "
        "that has paid most",
        f"  can pay       {f'one more run of epsilon {fits:.3g}, or several smaller ones' if fits else 'nothing more'}",
    ]
    if account.joined:
        lines.append(f"  together with {', '.join(account.joined)}")
    if unfinished:
        lines.append(
            f"  not finished  {len(unfinished)} run{'s' * (len(unfinished) != 1)}, which may be running or have "
            "crashed, and count all the same"
        )
    return "\n".join(lines)


def _history(ledger: Ledger, flags: argparse.Namespace) -> str:
    runs = {entry.name: entry for entry in ledger.reservations()}
    told = ledger.history()
    if not told:
        return f"Nothing has happened in {ledger.address}."
    lines = [f"What happened in {ledger.address}:"]
    for _, at, kind, body, _ in told:
        when = at.replace("T", " ").removesuffix("+00:00")
        lines.append(f"{when} UTC  {_sentence(kind, body, runs)}")
    return "\n".join(lines)


def _sentence(kind: str, body: dict[str, Any], runs: dict[str, Reservation]) -> str:
    """One entry, for people."""
    reason = f" ({body['reason']})" if body.get("reason") else ""
    match kind:
        case "made":
            return "made this ledger"
        case "opened":
            each = "person" if body["unit"] == "user" else "example"
            return (
                f"opened {body['account']!r}: every {each} may cost epsilon {body['epsilon']:g} at delta "
                f"{body['delta']:g}"
            )
        case "added":
            return f"{body['account']!r} now has {body['num_examples']:,} examples"
        case "limited":
            return f"gave {body['account']!r} another total: epsilon {body['epsilon']:g} at {body['delta']:g}{reason}"
        case "joined":
            return f"said that {', '.join(map(repr, body['accounts']))} belong together{reason}"
        case "reserved":
            from tfdpgen.privacy import epsilon_of

            run = runs[body["reservation"]]
            return (
                f"reserved epsilon {epsilon_of(run.event, run.delta):.3f} at delta {run.delta:g} for "
                f"{run.purpose or 'a run'}, of {run.num_examples:,} examples of {', '.join(map(repr, run.accounts))} "
                f"[{run.name[:8]}]"
            )
        case "confirmed":
            return f"finished [{body['reservation'][:8]}]"
    return f"the owner says that [{body['reservation'][:8]}] has not run, and it no longer counts{reason}"


def _limit(ledger: Ledger, flags: argparse.Namespace) -> str:
    from tfdpgen.privacy import PrivacyBudget

    ledger.limit(flags.name, PrivacyBudget(flags.epsilon, flags.delta), reason=flags.reason)
    return _account(ledger, next(account for account in ledger.standings() if account.name == flags.name))


def _join(ledger: Ledger, flags: argparse.Namespace) -> str:
    ledger.join(flags.names, reason=flags.reason)
    return "\n\n".join(_account(ledger, account) for account in ledger.standings() if account.name in flags.names)


def _void(ledger: Ledger, flags: argparse.Namespace) -> str:
    found = [entry.name for entry in ledger.reservations() if entry.name.startswith(flags.reservation)]
    if len(found) != 1:
        raise ValueError(
            f"`reservation` should begin the name of one; {flags.reservation!r} begins {len(found)}. "
            "`tfdpgen ledger history` shows names in brackets."
        )
    ledger.void(found[0], reason=flags.reason)
    return f"[{found[0][:8]}] no longer counts."


def _export(ledger: Ledger, flags: argparse.Namespace) -> str:
    from tfdpgen.privacy.accounting import event_to_dict

    head = ledger.verify()
    return json.dumps(
        {
            "accounts": [dataclasses.asdict(account) for account in ledger.standings()],
            "reservations": [
                vars(entry) | {"event": event_to_dict(entry.event), "accounts": list(entry.accounts)}
                for entry in ledger.reservations()
            ],
            "history": [entry._asdict() for entry in ledger.history()],
            "head": head,
        },
        indent=2,
    )


def _verify(ledger: Ledger, flags: argparse.Namespace) -> str:
    from tfdpgen.privacy import TamperedError

    head = ledger.verify()
    if flags.head and flags.head not in {entry.digest for entry in ledger.history()}:
        raise TamperedError(f"the history of {ledger.address} has no entry of digest {flags.head}: it is another one.")
    return f"{ledger.address} is as its history says. Head: {head}"


def _open_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="the private examples, as a run takes them")
    parser.add_argument("--name", default="", help="of the account (default: what --dataset says)")
    parser.add_argument("--epsilon", type=float, required=True, help="what every example may cost in all runs together")
    parser.add_argument("--delta", type=float, default=1e-5, help="at which (default: %(default)s)")
    parser.add_argument(
        "--unit", choices=("example", "user"), default="example", help="whose budget it is (default: %(default)s)"
    )
    for field in dataclasses.fields(SynthesisConfig):
        if field.name in _DATA:
            option: dict[str, Any] = {"type": type(field.default)}
            if isinstance(field.default, bool):
                option = {"action": "store_true"}
            parser.add_argument(f"--{field.name}", default=field.default, help="as of a run", **option)


def _limit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the account")
    parser.add_argument("--epsilon", type=float, required=True, help="what every example may cost in all runs together")
    parser.add_argument("--delta", type=float, default=1e-5, help="at which (default: %(default)s)")
    parser.add_argument("--reason", required=True, help="is written down")


def _join_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", help="of two accounts or more")
    parser.add_argument("--reason", required=True, help="is written down")


def _void_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reservation", help="its name or how that begins, as the history shows it")
    parser.add_argument("--reason", required=True, help="is written down")


def _no_flags(parser: argparse.ArgumentParser) -> None:
    pass


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--head", default="", help="a head that was noted earlier, which has to be in the history")


_Command = tuple[Callable[["Ledger", argparse.Namespace], str], str, Callable[[argparse.ArgumentParser], None]]
_COMMANDS: dict[str, _Command] = {
    "open": (_open, "open an account for a data set, with a total budget", _open_flags),
    "status": (_status, "show what every account has come to, and what it can still pay", _no_flags),
    "history": (_history, "show everything that happened, in order", _no_flags),
    "limit": (_limit, "give an account another total", _limit_flags),
    "join": (_join, "say that data sets belong together, and are charged together", _join_flags),
    "void": (_void, "say that nothing has run under a reservation, so that it no longer counts", _void_flags),
    "export": (_export, "write everything but the key and the digests of examples as JSON", _no_flags),
    "verify": (_verify, "find out whether a ledger was changed by something else", _verify_flags),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
