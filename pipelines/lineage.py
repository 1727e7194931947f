"""What was made of what: an index over the headers of artifacts, which answers for whatever a run has left.

    index = Lineage(default_index())
    index.record(artifact, {"public/serving_model/3": "output/public/serving_model/3"})       # after a step
    index.find("output/public/serving_model/3")                       # by content, wherever it was copied to; or by id
    index.made_of(node), index.used_in(node)

A header holds the headers of what its artifact was made of (`components/artifacts.py`), so that one artifact is enough
to trace it back; the index finds the artifact of a SavedModel or a report, and what was made of one. It is an SQLite
file beside the ledger, for its owner alone: headers of internal artifacts are in it, and metrics are not.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Column, Float, ForeignKey, MetaData, String, Table, Text, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.pool import NullPool

from components.artifacts import HEADER, Artifact, digest_of

_TABLES = MetaData()
_ARTIFACTS = Table(
    "artifacts",
    _TABLES,
    Column("id", String(32), primary_key=True),
    Column("type", String(40), nullable=False),
    Column("component", String(40), nullable=False),
    Column("run", String(60), nullable=False),
    Column("version", String(40), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("facts", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("path", Text, nullable=False),  # where it was when it was made; empty where only a header tells of it
    Column("recorded_at", String(40), nullable=False),
)
_EDGES = Table(
    "edges",
    _TABLES,
    Column("artifact", ForeignKey("artifacts.id"), primary_key=True),
    Column("name", String(40), primary_key=True),
    Column("made_of", ForeignKey("artifacts.id"), nullable=False),
)
_COPIES = Table(  # what a step has put elsewhere, by its content
    "copies",
    _TABLES,
    Column("digest", String(64), primary_key=True),
    Column("artifact", ForeignKey("artifacts.id"), primary_key=True),
    Column("name", String(200), nullable=False),
)


_PUBLISHED = ("public", "not_for_release")


class Node(NamedTuple):
    """An artifact in the index.

    Attributes:
      id, type, component, run, version, digest, seconds, facts, parameters: as in its header.
      path: where it was when it was recorded; empty where only another's header tells of it.
      recorded_at: when, in ISO 8601, UTC.
    """

    id: str
    type: str
    component: str
    run: str
    version: str
    digest: str
    seconds: float
    facts: dict[str, Any]
    parameters: dict[str, Any]
    path: str
    recorded_at: str


class UnknownArtifactError(ValueError):
    """Nothing is known of what was asked about; the message says where was looked."""


class Lineage:
    """An index of artifacts.

    Args:
      path: of the SQLite file; made if missing, for its owner alone.
      create: whether to make it.

    Raises:
      UnknownArtifactError: if there is none and it should not be made.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise UnknownArtifactError(f"there is no index of artifacts at {self.path}: no run has recorded any there.")
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        if self.path.stat().st_mode & 0o077:  # whoever made it
            with contextlib.suppress(PermissionError):
                self.path.chmod(0o600)
        url = sqlalchemy.URL.create("sqlite+pysqlite", database=str(self.path.absolute()))
        self._engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args={"timeout": 60})
        _TABLES.create_all(self._engine)

    def record(self, artifact: Artifact, copies: Mapping[str, str | os.PathLike[str]] | None = None) -> None:
        """Writes down an artifact and what it was made of; again, where that was done before.

        Args:
          artifact: finished.
          copies: what was put elsewhere of it: files or folders by name.
        """
        with self._engine.begin() as connection:
            _record(connection, artifact.header, str(artifact.path.absolute()))
            for name, path in (copies or {}).items():
                row = {"digest": digest_of(Path(path)), "artifact": artifact.id, "name": name}
                connection.execute(upsert(_COPIES).values(row).on_conflict_do_nothing())

    def find(self, what: str | os.PathLike[str]) -> tuple[Node, str]:
        """The artifact of a folder or file, by its header or else its content, or of an id.

        Returns:
          The artifact, and what the path is of it: "" for all.

        Raises:
          UnknownArtifactError: if there is none.
        """
        path = Path(what).expanduser()
        folder = path.parent if path.name in _PUBLISHED else path  # of a run
        if (publication := folder / "internal" / "publish" / "publication").is_dir():
            path = publication
        with self._engine.connect() as connection:
            if (path / HEADER).is_file():
                asked, name = json.loads((path / HEADER).read_text())["id"], ""
            elif path.exists():
                digest = digest_of(path)
                copy = connection.execute(select(_COPIES).where(_COPIES.c.digest == digest)).first()
                if copy is None:
                    raise UnknownArtifactError(
                        f"{path} has no {HEADER}, and {self.path} knows nothing of its content: it was made elsewhere, "
                        "or changed since."
                    )
                asked, name = copy.artifact, copy.name
            else:
                asked, name = str(what), ""
            row = connection.execute(select(_ARTIFACTS).where(_ARTIFACTS.c.id == asked)).first()
        if row is None:
            raise UnknownArtifactError(f"{what} is neither a file or folder nor an artifact that {self.path} knows.")
        return _node(row), name

    def made_of(self, node: Node) -> dict[str, Node]:
        """What an artifact was made of, by the name that its component has for it."""
        asked = select(_EDGES.c.name, _ARTIFACTS).join(_ARTIFACTS, _ARTIFACTS.c.id == _EDGES.c.made_of)
        with self._engine.connect() as connection:
            rows = connection.execute(asked.where(_EDGES.c.artifact == node.id).order_by(_EDGES.c.name)).all()
        return {row[0]: _node(row[1:]) for row in rows}

    def used_in(self, node: Node) -> list[Node]:
        """What was made of an artifact."""
        asked = select(_ARTIFACTS).join(_EDGES, _ARTIFACTS.c.id == _EDGES.c.artifact).distinct()
        with self._engine.connect() as connection:
            rows = connection.execute(asked.where(_EDGES.c.made_of == node.id).order_by(_ARTIFACTS.c.recorded_at)).all()
        return [_node(row) for row in rows]

    def copies(self, node: Node) -> list[str]:
        """The names of what was put elsewhere of an artifact."""
        asked = select(_COPIES.c.name).where(_COPIES.c.artifact == node.id).order_by(_COPIES.c.name)
        with self._engine.connect() as connection:
            return list(connection.execute(asked).scalars())


def _record(connection: sqlalchemy.Connection, header: Mapping[str, Any], path: str) -> None:
    """Writes down an artifact by its header, after all that it was made of."""
    for source in header["inputs"].values():
        _record(connection, source, "")
    row = {name: header[name] for name in ("id", "type", "component", "run", "version", "digest", "seconds")} | {
        "facts": json.dumps(header["facts"]),
        "parameters": json.dumps(header["parameters"]),
        "path": path,
        "recorded_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    written = upsert(_ARTIFACTS).values(row)
    known = connection.execute(select(_ARTIFACTS.c.path).where(_ARTIFACTS.c.id == header["id"])).scalar()
    if known is None:
        connection.execute(written)
    elif path:
        connection.execute(written.on_conflict_do_update(index_elements=["id"], set_={"path": path}))
    for name, source in header["inputs"].items():
        edge = {"artifact": header["id"], "name": name, "made_of": source["id"]}
        if not connection.execute(select(_EDGES).filter_by(artifact=edge["artifact"], name=name)).first():
            connection.execute(insert(_EDGES).values(edge))


def _node(row: Any) -> Node:
    """A row as a node."""
    values = dict(zip(Node._fields, row, strict=True))
    return Node(**values | {name: json.loads(values[name]) for name in ("facts", "parameters")})
