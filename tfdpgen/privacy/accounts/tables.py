"""The ledger's tables. `migrations/` makes them; a test holds that the two agree.

Examples are not rows: a million of them would be a million rows to write in one transaction. They are kept as sorted
arrays in `CHUNKS` rows of `examples`, beside the number of each one's cohort. A **cohort** is a set of examples with
one history: what touches all of it is one row of `charges`, and what touches a part of it splits it.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

CHUNKS = 64  # rows that examples are in, by the first bits of their digests

LONGEST_NAME = 400  # characters of an account's name

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

FACTS = Table(  # the key of digests
    "facts", METADATA, Column("name", String(40), primary_key=True), Column("value", Text, nullable=False)
)

ACCOUNTS = Table(  # a data set that an owner, or a first run, has opened with a total budget
    "accounts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(LONGEST_NAME), nullable=False, unique=True),
    Column("epsilon", Double, nullable=False),
    Column("delta", Double, nullable=False),
    Column("unit", String(8), nullable=False),
    Column("most", Integer, nullable=False),  # images of one user in it at most; 0: users are not known
    Column("joined", Integer, nullable=False),  # accounts with the same number are charged together
    Column("opened_at", String(40), nullable=False),
    CheckConstraint("unit in ('example', 'user')", name="unit"),
)

EXAMPLES = Table(
    "examples",
    METADATA,
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("digests", LargeBinary, nullable=False),  # uint64, big-endian, sorted
    Column("cohorts", LargeBinary, nullable=False),  # uint32, big-endian
)

COHORTS = Table("cohorts", METADATA, Column("id", Integer, primary_key=True), Column("size", Integer, nullable=False))

MEMBERSHIPS = Table(
    "memberships",
    METADATA,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("cohort", ForeignKey("cohorts.id"), primary_key=True),
)

RESERVATIONS = Table(
    "reservations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(32), nullable=False, unique=True),
    Column("event", Text, nullable=False),
    Column("unit", String(8), nullable=False),  # whose presence the event is of
    Column("delta", Double, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("reserved_at", String(40), nullable=False),
    Column("state", String(10), nullable=False),
    Column("num_examples", Integer, nullable=False),
    Column("num_distinct", Integer, nullable=False),  # images
    Column("most", Integer, nullable=False),  # of one user at most, as far as it was known then
    Column("copies", Integer, nullable=False),  # of one image at most
    Column("examples", String(64), nullable=False),  # `set_digest` of them
    CheckConstraint("state in ('reserved', 'confirmed', 'void')", name="state"),
)

CHARGES = Table(
    "charges",
    METADATA,
    Column("reservation", ForeignKey("reservations.id"), primary_key=True),
    Column("cohort", ForeignKey("cohorts.id"), primary_key=True),
)

HISTORY = Table(  # append-only; each entry holds the digest of the one before
    "history",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", String(40), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)
