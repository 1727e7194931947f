"""Accounts by example, reservations, charges, and an append-only history.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_REFUSAL = "the history of a ledger is append-only"


def upgrade() -> None:
    """Makes all tables."""
    op.create_table(
        "facts",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_facts"),
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("epsilon", sa.Double, nullable=False),
        sa.Column("delta", sa.Double, nullable=False),
        sa.Column("unit", sa.String(8), nullable=False),
        sa.Column("most", sa.Integer, nullable=False),
        sa.Column("joined", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
        sa.CheckConstraint("unit in ('example', 'user')", name=op.f("ck_accounts_unit")),
    )
    op.create_table(
        "examples",
        sa.Column("chunk", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("digests", sa.LargeBinary, nullable=False),
        sa.Column("cohorts", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("chunk", name="pk_examples"),
    )
    op.create_table(
        "cohorts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cohorts"),
    )
    op.create_table(
        "memberships",
        sa.Column("account", sa.Integer, nullable=False),
        sa.Column("cohort", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account", "cohort", name="pk_memberships"),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_memberships_account"),
        sa.ForeignKeyConstraint(["cohort"], ["cohorts.id"], name="fk_memberships_cohort"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("unit", sa.String(8), nullable=False),
        sa.Column("delta", sa.Double, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("reserved_at", sa.String(40), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("num_examples", sa.Integer, nullable=False),
        sa.Column("num_distinct", sa.Integer, nullable=False),
        sa.Column("most", sa.Integer, nullable=False),
        sa.Column("copies", sa.Integer, nullable=False),
        sa.Column("examples", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
        sa.UniqueConstraint("name", name="uq_reservations_name"),
        sa.CheckConstraint("state in ('reserved', 'confirmed', 'void')", name=op.f("ck_reservations_state")),
    )
    op.create_table(
        "charges",
        sa.Column("reservation", sa.Integer, nullable=False),
        sa.Column("cohort", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("reservation", "cohort", name="pk_charges"),
        sa.ForeignKeyConstraint(["reservation"], ["reservations.id"], name="fk_charges_reservation"),
        sa.ForeignKeyConstraint(["cohort"], ["cohorts.id"], name="fk_charges_cohort"),
    )
    op.create_table(
        "history",
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_history"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER history_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON history "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER history_refuses_{verb.lower()} BEFORE {verb} ON history "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )


def downgrade() -> None:
    """Is refused."""
    raise NotImplementedError("A ledger is never taken back to an earlier form: that would forget what was spent.")
