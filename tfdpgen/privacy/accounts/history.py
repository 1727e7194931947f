"""What happened to a ledger, in order: an append-only table in which each entry holds the digest of the one before.

    append(connection, "reserved", {"reservation": "3f...", ...})
    check(connection)                      # TamperedError where an entry, or what it tells of, was changed afterwards

Whoever changes or removes an entry has to change every later one, and the head with them. An owner who has noted the
head (`tfdpgen ledger export`) sees that too.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select

from tfdpgen.privacy.accounts.tables import ACCOUNTS, CHARGES, COHORTS, FACTS, HISTORY, MEMBERSHIPS, RESERVATIONS

START = "0" * 64  # what the first entry holds


class TamperedError(RuntimeError):
    """A ledger was changed by something else than this package; the message says where it shows."""


class Entry(NamedTuple):
    """One thing that happened.

    Attributes:
      number: 1 is the first.
      at: when, by the clock of the machine that wrote it, in ISO 8601, UTC. Order is by number.
      kind: "made", "opened", "limited", "added", "joined", "reserved", "confirmed" or "void".
      body: what it was, JSON-ready.
      digest: of this entry and, through the previous one's, of all before.
    """

    number: int
    at: str
    kind: str
    body: dict[str, Any]
    digest: str


def now() -> str:
    """The time as a ledger writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def append(connection: Connection, kind: str, body: Mapping[str, Any]) -> None:
    """Adds an entry."""
    last = connection.execute(
        select(HISTORY.c.number, HISTORY.c.digest).order_by(HISTORY.c.number.desc()).limit(1)
    ).first()
    number, previous = (last.number + 1, last.digest) if last else (1, START)
    at, text = now(), json.dumps(body, sort_keys=True)
    digest = _digest(number, at, kind, text, previous)
    values = {"number": number, "at": at, "kind": kind, "body": text, "previous": previous, "digest": digest}
    connection.execute(insert(HISTORY).values(values))


def entries(connection: Connection) -> list[Entry]:
    """Everything, oldest first.

    Raises:
      TamperedError: if an entry was changed, taken out or put in.
    """
    found, previous = [], START
    for row in connection.execute(select(HISTORY).order_by(HISTORY.c.number)):
        expected = _digest(row.number, row.at, row.kind, row.body, previous)
        if row.number != len(found) + 1 or row.previous != previous or row.digest != expected:
            raise TamperedError(
                f"entry {len(found) + 1} of the ledger's history is not what was written there: it was changed, or one "
                "was taken out. Nothing is reserved in such a ledger; restore it from a backup."
            )
        found.append(Entry(row.number, row.at, row.kind, json.loads(row.body), row.digest))
        previous = row.digest
    return found


def check(connection: Connection) -> list[Entry]:
    """All entries, having compared accounts and reservations with what they say.

    Raises:
      TamperedError: if something differs.
    """
    told, made = entries(connection), ""
    accounts: dict[str, dict[str, Any]] = {}
    reservations: dict[str, dict[str, Any]] = {}
    members: dict[str, int] = {}
    for _, _, kind, body, _ in told:
        match kind:
            case "made":
                made = body["key_digest"]
            case "opened":
                accounts[body["account"]] = {key: body[key] for key in ("epsilon", "delta", "unit", "joined")} | {
                    "most": 0
                }
            case "added":
                accounts[body["account"]]["most"] = body["most"]
                members[body["account"]] = body["num_examples"]
            case "limited":
                accounts[body["account"]] |= {key: body[key] for key in ("epsilon", "delta")}
            case "joined":
                for name in body["accounts"]:
                    accounts[name]["joined"] = body["joined"]
            case "reserved":
                keys = ("event", "unit", "delta", "purpose", "num_examples", "num_distinct", "most", "copies")
                facts = {key: body[key] for key in keys} | {"examples": body["examples_digest"], "state": "reserved"}
                reservations[body["reservation"]] = facts
            case "confirmed" | "void":
                reservations[body["reservation"]]["state"] = kind
    key = connection.execute(select(FACTS.c.value).where(FACTS.c.name == "key")).scalar()
    if (key_digest(key) if key else "") != made:
        raise TamperedError(
            "the key of the ledger is not the one that it was made with: it would know no example again. Nothing is "
            "reserved in such a ledger; restore it from a backup."
        )
    for what, table, expected in (("account", ACCOUNTS, accounts), ("reservation", RESERVATIONS, reservations)):
        rows = {row.name: row._mapping for row in connection.execute(select(table))}
        for name in sorted({*rows, *expected}):
            facts = expected.get(name)
            if name not in rows or facts is None or any(rows[name][key] != value for key, value in facts.items()):
                raise TamperedError(
                    f"the {what} {name!r} of the ledger is not what its history says: it was changed by something "
                    "else. Nothing is reserved in such a ledger; restore it from a backup."
                )
    paid = {name: facts["num_distinct"] for name, facts in reservations.items()}
    for what, table, holder, link, expected in (
        ("account", ACCOUNTS, MEMBERSHIPS.c.account, MEMBERSHIPS.c.cohort, members),
        ("reservation", RESERVATIONS, CHARGES.c.reservation, CHARGES.c.cohort, paid),
    ):
        counted = (
            select(table.c.name, func.sum(COHORTS.c.size))
            .join(holder.table, holder == table.c.id)
            .join(COHORTS, COHORTS.c.id == link)
            .group_by(table.c.name)
        )
        found = {name: int(size) for name, size in connection.execute(counted)}
        if differing := sorted(name for name in {*found, *expected} if found.get(name, 0) != expected.get(name, 0)):
            raise TamperedError(
                f"the {what} {differing[0]!r} of the ledger has other examples than its history says: it was changed "
                "by something else. Nothing is reserved in such a ledger; restore it from a backup."
            )
    return told


def key_digest(key: str) -> str:
    """By which the history knows the key of examples' digests again, and nobody can guess it."""
    return hashlib.sha256(b"key of a ledger" + bytes.fromhex(key)).hexdigest()


def head(connection: Connection) -> str:
    """The digest of the last entry, and through it of all."""
    number = connection.execute(select(func.max(HISTORY.c.number))).scalar()
    found = connection.execute(select(HISTORY.c.digest).where(HISTORY.c.number == number)).scalar()
    return found or START


def _digest(number: int, at: str, kind: str, body: str, previous: str) -> str:
    """The digest of one entry."""
    return hashlib.sha256(json.dumps([number, at, kind, body, previous]).encode()).hexdigest()
