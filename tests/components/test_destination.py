"""The user's folder: results replace what an earlier run has written, and nothing else is ever touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.destination import RECORD, DestinationError, check_destination
from components.publish import push


def _results(folder: Path, text: str, version: int) -> Path:
    """What publish has put together."""
    for name in (
        "public/synthetic/a.tfrecord",
        "report.html",
        "summary.json",
        f"public/serving_model/{version}/saved_model.pb",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text} {name}")
    return folder


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        "public/synthetic/a.tfrecord",
        "public/synthetic",
        "report.html",
        "summary.json",
        "public/serving_model/1/mine",
        "public",
        "not_for_release",
        RECORD,
    ],
)
def test_what_is_the_user_s_survives(name: str, tmp_path: Path) -> None:
    mine = tmp_path / "output" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = _tree(tmp_path / "output")
    with pytest.raises(DestinationError, match="is in the way: "):
        check_destination(tmp_path / "output")
    with pytest.raises(DestinationError):
        push(_results(tmp_path / "new", "new", 1), tmp_path / "output")
    assert _tree(tmp_path / "output") == before


def test_what_an_earlier_run_wrote_is_replaced(tmp_path: Path) -> None:
    output = tmp_path / "output"
    push(_results(tmp_path / "first", "first", 1), output)
    (output / "notes.txt").write_text("mine")
    (output / "public" / "synthetic" / ".DS_Store").write_text("litter")
    (output / "public" / "serving_model" / "readme").write_text("mine")
    check_destination(output)
    push(_results(tmp_path / "second", "second", 2), output)
    tree = _tree(output)
    assert json.loads(tree.pop(RECORD))["written"].keys() >= {
        "report.html",
        "summary.json",
        "public/synthetic/a.tfrecord",
    }
    assert {name: text.decode().split()[0] for name, text in tree.items()} == {
        "notes.txt": "mine",
        "report.html": "second",
        "summary.json": "second",
        "public/synthetic/a.tfrecord": "second",
        "public/serving_model/readme": "mine",
        "public/serving_model/1/saved_model.pb": "first",
        "public/serving_model/2/saved_model.pb": "second",
    }


@pytest.mark.parametrize("name", ["public/synthetic/mine.txt", "public/synthetic/deeper/mine.txt", "report.html"])
def test_what_was_added_or_changed_since_is_the_user_s(name: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    push(_results(tmp_path / "first", "first", 1), output)
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text("mine")
    before = _tree(output)
    with pytest.raises(DestinationError, match=Path(name).name):
        push(_results(tmp_path / "second", "second", 2), output)
    assert _tree(output) == before


def test_a_kill_while_results_are_replaced_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    push(_results(tmp_path / "first", "first", 1), output)
    from components import publish

    whole = publish.replace

    def killed(source: Path, path: Path, old: Path) -> None:
        whole(source, path, old)
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        push(_results(tmp_path / "second", "second", 2), output)
    monkeypatch.undo()
    assert (output / "public" / "synthetic" / "a.tfrecord").read_text().startswith("second")
    assert (output / "report.html").read_text().startswith("first")
    push(_results(tmp_path / "third", "third", 3), output)
    assert (output / "report.html").read_text().startswith("third")


def test_files_and_unwritable_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper" / "still"):
        with pytest.raises(DestinationError, match=r"file is a file\. Give another --output_dir"):
            check_destination(path)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DestinationError):
        check_destination(tmp_path / "link")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as for anybody but root, who runs tests in containers
    with pytest.raises(DestinationError, match="should be a folder that can be written to"):
        check_destination(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_release_that_may_not_leave_takes_away_what_might(tmp_path: Path) -> None:
    output = tmp_path / "output"
    push(_results(tmp_path / "first", "first", 1), output)
    for name in ("not_for_release/synthetic/a.tfrecord", "report.html", "summary.json"):
        (tmp_path / "second" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "second" / name).write_text(f"second {name}")
    push(tmp_path / "second", output)
    assert not (output / "public" / "synthetic").exists()
    assert (output / "not_for_release" / "synthetic" / "a.tfrecord").exists()
    push(_results(tmp_path / "third", "third", 2), output)
    assert not (output / "not_for_release" / "synthetic").exists()
    assert (output / "public" / "synthetic" / "a.tfrecord").read_text().startswith("third")
