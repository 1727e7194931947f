"""The folder that receives the results, which is the user's: nothing is replaced there that no earlier run has written.

    check_destination("output")                         # DestinationError names what is in the way
    with replacing("output", "publication"):            # from here on both the old and the new files are ours
        ...

A file beside the results, `.tfdpgen.json`, lists every file that was written, with its SHA-256. What has the name of a
result and is not listed, or was changed since, is the user's and is left alone. `serving_model/` only ever gains
versions, so that it has to be listed, but not what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfdpgen.files import fsync

PUBLIC, KEPT = "public", "not_for_release"  # the folder of what may be published, and its place where nothing may be
SERVED = (f"{PUBLIC}/serving_model", f"{KEPT}/serving_model")  # which publications add to
_HANDED_OUT = ("synthetic", "report_public.html", "privacy.json")
RESULTS = (  # which a publication replaces, or takes away where it has none
    *(f"{folder}/{name}" for folder in (PUBLIC, KEPT) for name in _HANDED_OUT),
    "report.html",
    "summary.json",
)
RECORD = ".tfdpgen.json"
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # that file managers leave wherever they look


class DestinationError(ValueError):
    """Something that no earlier run has written is where results would go."""


def check_destination(destination: str | os.PathLike[str]) -> None:
    """Holds that results can be put into a folder without replacing anything of the user's.

    Raises:
      DestinationError: if the folder cannot be written, or holds something with the name of a result that no earlier
        run has written, or that was changed since.
    """
    folder = Path(destination)
    standing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not standing.is_dir():
        raise DestinationError(f"`output_dir` should be a folder; {standing} is a file. Give another --output_dir.")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise DestinationError(f"`output_dir` should be a folder that can be written to; {standing} cannot.")
    if standing != folder:
        return  # there is no such folder yet
    for name in (PUBLIC, KEPT):
        if (folder / name).is_symlink() or ((folder / name).exists() and not (folder / name).is_dir()):
            raise DestinationError(f"{folder / name} is in the way: it should be a folder. Move it away.")
    written = _written(folder)
    for name in (*RESULTS, *SERVED):
        if strange := _strange(folder, name, written):
            raise DestinationError(
                f"{strange} is in the way: no earlier run has written it, or it was changed since. Nothing of yours "
                "is replaced or deleted; move it away, or give another --output_dir."
            )


@contextlib.contextmanager
def replacing(destination: Path, source: Path) -> Iterator[None]:
    """While in the block, what `source` holds takes the place of what earlier runs have written to `destination`.

    Raises:
      DestinationError: as `check_destination`, before anything is changed.
    """
    check_destination(destination)
    new = {path: [digest] for path, digest in _digests(source).items()}
    old = _written(destination)
    both = {path: sorted({*old.get(path, ()), *new.get(path, ())}) for path in (*old, *new)}
    served = {name: [] for name in SERVED if name in old or (source / name).exists()}
    _record(destination, both | served)  # before the first file is touched: a kill leaves nothing unlisted
    yield
    _record(destination, new | served)


def _strange(folder: Path, name: str, written: Mapping[str, list[str]]) -> Path | None:
    """What is there under a result's name without having been written by an earlier run."""
    place = folder / name
    if not (place.exists() or place.is_symlink()):
        return None
    if name in SERVED:
        return None if place.is_dir() and name in written else place
    found = [place] if place.is_file() or place.is_symlink() else sorted(place.rglob("*"))
    if not found and not any(path == name or path.startswith(f"{name}/") for path in written):
        return place  # an empty folder, or something that is neither file nor folder
    for path in found:
        if path.name in _LITTER or (path.is_dir() and not path.is_symlink()):
            continue
        known = written.get(path.relative_to(folder).as_posix(), ())
        if path.is_symlink() or not path.is_file() or _digest(path) not in known:
            return path
    return None


def _digests(source: Path) -> dict[str, str]:
    """The SHA-256 of every file under a result's name, by its path in the folder."""
    paths = [path for name in RESULTS for path in (source / name, *sorted((source / name).rglob("*")))]
    return {path.relative_to(source).as_posix(): _digest(path) for path in paths if path.is_file()}


def _digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(folder: Path) -> dict[str, list[str]]:
    """What earlier runs have written; nothing where there is no record.

    Raises:
      DestinationError: if there is something else in its place.
    """
    record = folder / RECORD
    if not (record.exists() or record.is_symlink()):
        return {}
    try:
        written = json.loads(record.read_text())["written"]
        return {str(path): list(digests) for path, digests in written.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DestinationError(
            f"{record} is in the way: no earlier run has recorded there what it wrote. Move it away, or give another "
            "--output_dir."
        ) from None


def _record(folder: Path, written: Mapping[str, list[str]]) -> None:
    """Writes the record, whole or not at all."""
    note = "What tfdpgen has written here: it replaces these files, as long as they are unchanged, and no others."
    part = folder / f"{RECORD}.part"
    part.touch(mode=0o600)
    part.write_text(json.dumps({"note": note, "written": dict(written)}, indent=1) + "\n")
    fsync(part)
    part.replace(folder / RECORD)
    fsync(folder)
