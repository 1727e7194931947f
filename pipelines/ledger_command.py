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
import re
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
_SHOWN = 8  # characters of a reservation's name
_EXPLANATION = """\
Epsilon bounds what all runs together can give away about any one example, or user where an account is of users: 0
would be nothing, below 1 is strong, above 10 says little. It adds up over runs, to less than the sum, so that an
account can pay more than the difference. It is never given back: a run that failed after it had reserved counts too.
An account has all examples of a data set; a run may use a part, such as those that are trained on. This is internal, as
the ledger is."""


def main(arguments: Sequence[str], program: str = "python -m pipelines.ledger_command") -> int:
    """Runs one sub-command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} COMMAND [--flag=value ...]",
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
    flags = parser.parse_args(arguments or ["--help"])

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
    everything = Identity.together(parts)
    others = [account.name for account in ledger.standings(everything)]
    account = ledger.open(everything, total, name=flags.name or flags.dataset, unit=flags.unit)
    said = f"Opened in {ledger.address}:\n{_account(ledger, account)}"
    if others:
        said += f"\nSome of these examples are in {', '.join(map(repr, others))} too, and are held to each total."
    return said


def _status(ledger: Ledger, flags: argparse.Namespace) -> str:
    accounts = _named(ledger, flags.names)
    if not accounts:
        return f"{ledger.address} has no accounts: nothing was spent."
    texts = [_account(ledger, account) for account in accounts]
    return "\n\n".join([*_warning(ledger), f"Accounts of {ledger.address}:", *texts, _EXPLANATION])


def _named(ledger: Ledger, names: Sequence[str]) -> list[Standing]:
    """The accounts of these names, or all.

    Raises:
      ValueError: if there is none of a name.
    """
    accounts = {account.name: account for account in ledger.standings()}
    if unknown := [name for name in names if name not in accounts]:
        raise ValueError(f"There is no account {unknown[0]!r}; there are {', '.join(map(repr, accounts)) or 'none'}.")
    return [account for name, account in accounts.items() if not names or name in names]


def _warning(ledger: Ledger) -> list[str]:
    """That a ledger was tampered with, where it was: what it says is still shown."""
    from tfdpgen.privacy import TamperedError

    try:
        ledger.history()
    except TamperedError as error:
        return [f"DO NOT RELY ON THIS: {error}"]
    return []


def _account(ledger: Ledger, account: Standing) -> str:
    """One account, for people."""
    total, fits = account.total, ledger.fitting(account.name)
    unfinished = [
        entry for entry in ledger.reservations() if entry.state == "reserved" and account.name in entry.accounts
    ]
    each = "user" if account.unit == "user" else "example"
    more = f"one more run of about epsilon {fits:.3g} at that delta"
    if account.unit == "user":
        more += ", by a method that promises it to users"
    lines = [
        f"{account.name}",
        f"  examples      {account.num_examples:,}",
        f"  may cost      epsilon {total.epsilon:g} at delta {total.delta:g}, for every {each}, in all runs together",
        f"  has cost      epsilon {account.spent:.3g} in {account.runs} run{'s' * (account.runs != 1)}, for the {each} "
        "that has paid most",
        f"  can pay       {more if fits else 'nothing more'}",
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
    _named(ledger, flags.names)
    runs = {entry.name: entry for entry in ledger.reservations()}
    told = ledger.history()
    if not told:
        return f"Nothing has happened in {ledger.address}."
    lines = [f"What happened in {ledger.address}:"]
    for _, at, kind, body, _ in told:
        if flags.names and not _concerns(body, runs) & set(flags.names):
            continue
        when = at.replace("T", " ").removesuffix("+00:00")
        lines.append(f"{when} UTC  {_sentence(kind, body, runs)}")
    return "\n".join(lines)


def _concerns(body: dict[str, Any], runs: dict[str, Reservation]) -> set[str]:
    """The accounts that an entry is about."""
    if "account" in body:
        return {body["account"]}
    if "accounts" in body:
        return set(body["accounts"])
    return set(runs[body["reservation"]].accounts) if "reservation" in body else set()


def _sentence(kind: str, body: dict[str, Any], runs: dict[str, Reservation]) -> str:
    """One entry, for people."""
    reason = f" ({body['by']}: {body['reason']})" if "reason" in body else ""
    match kind:
        case "made":
            return "made this ledger"
        case "opened":
            each = body["unit"]
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
                f"reserved epsilon {epsilon_of(run.event, run.delta):.3g} at delta {run.delta:g} for "
                f"{run.purpose or 'a run'}, of {run.num_examples:,} examples of {', '.join(map(repr, run.accounts))} "
                f"[{run.name[:_SHOWN]}]"
            )
        case "confirmed":
            return f"finished [{body['reservation'][:_SHOWN]}]"
    return f"[{body['reservation'][:_SHOWN]}] is said not to have run, and no longer counts{reason}"


def _limit(ledger: Ledger, flags: argparse.Namespace) -> str:
    from tfdpgen.privacy import PrivacyBudget

    had = next((account.total for account in ledger.standings() if account.name == flags.name), None)
    total = PrivacyBudget(flags.epsilon, (had.delta if had else 1e-5) if flags.delta is None else flags.delta)
    ledger.limit(flags.name, total, reason=flags.reason)
    (account,) = _named(ledger, [flags.name])
    before = f"Before: epsilon {had.epsilon:g} at delta {had.delta:g}. Now:\n" if had else ""
    return before + _account(ledger, account)


def _join(ledger: Ledger, flags: argparse.Namespace) -> str:
    ledger.join(flags.names, reason=flags.reason)
    return "\n\n".join(_account(ledger, account) for account in ledger.standings() if account.name in flags.names)


def _void(ledger: Ledger, flags: argparse.Namespace) -> str:
    from tfdpgen.privacy import epsilon_of

    found = [entry for entry in ledger.reservations() if entry.name.startswith(flags.reservation)]
    if len(found) != 1 or len(flags.reservation) < _SHOWN:
        raise ValueError(
            f"`reservation` should be the first {_SHOWN} characters of one at least; {flags.reservation!r} begins "
            f"{len(found)}. `tfdpgen ledger history` shows them in brackets."
        )
    (run,) = found
    ledger.void(run.name, reason=flags.reason)
    return (
        f"[{run.name[:_SHOWN]}] no longer counts: {run.purpose or 'a run'}, of {run.reserved_at}, epsilon "
        f"{epsilon_of(run.event, run.delta):.3g} at delta {run.delta:g}."
    )


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

    if flags.head and not re.fullmatch("[0-9a-f]{64}", flags.head):
        raise ValueError(f"`head` should be all 64 characters that `verify` has printed; got {flags.head!r}.")
    head = ledger.verify()
    if flags.head and flags.head not in {entry.digest for entry in ledger.history()}:
        raise TamperedError(f"the history of {ledger.address} has no entry of digest {flags.head}: it is another one.")
    return f"{ledger.address} is as its history says. Head: {head}"


def _open_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="the private examples, as a run takes them")
    parser.add_argument("--name", default="", help="of the account (default: what --dataset says)")
    parser.add_argument("--epsilon", type=float, required=True, help="what every example may cost in all runs together")
    parser.add_argument(
        "--delta", type=float, default=1e-5, help="of that epsilon: below 1 / number of examples (default: %(default)s)"
    )
    parser.add_argument(
        "--unit", choices=("example", "user"), default="example", help="whose budget it is (default: %(default)s)"
    )
    for field in dataclasses.fields(SynthesisConfig):
        if field.name in _DATA:
            option: dict[str, Any] = {"type": type(field.default)}
            if isinstance(field.default, bool):
                option = {"action": "store_true"}
            text = "as for tfdpgen run, whose --help explains it"
            parser.add_argument(f"--{field.name}", default=field.default, help=text, **option)


def _limit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the account")
    parser.add_argument("--epsilon", type=float, required=True, help="what every example may cost in all runs together")
    parser.add_argument("--delta", type=float, help="of that epsilon (default: as it was)")
    parser.add_argument("--reason", required=True, help="for the history")


def _join_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", help="of two accounts or more")
    parser.add_argument("--reason", required=True, help="for the history")


def _void_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reservation", help="the 8 characters in brackets that the history shows")
    parser.add_argument("--reason", required=True, help="for the history")


def _no_flags(parser: argparse.ArgumentParser) -> None:
    pass


def _names_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="of accounts (default: all)")


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--head", default="", help="a head that was noted earlier, which has to be in the history")


_Command = tuple[Callable[["Ledger", argparse.Namespace], str], str, Callable[[argparse.ArgumentParser], None]]
_COMMANDS: dict[str, _Command] = {
    "open": (_open, "open an account for a data set, with a total budget", _open_flags),
    "status": (_status, "show what every account has come to, and what it can still pay", _names_flag),
    "history": (_history, "show everything that happened, in order", _names_flag),
    "limit": (_limit, "give an account another total", _limit_flags),
    "join": (_join, "say that data sets belong together, and are charged together", _join_flags),
    "void": (_void, "say that nothing has run under a reservation, so that it no longer counts", _void_flags),
    "export": (_export, "write everything but the key and the digests of examples as JSON", _no_flags),
    "verify": (_verify, "find out whether a ledger was changed by something else", _verify_flags),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
