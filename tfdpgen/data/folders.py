"""A folder of images, one sub-folder a class -> a list of files.

    photos/cat/1.jpg  photos/dog/7.png                                  # the classes are cat and dog
    photos/train/cat/1.jpg  photos/val/...  photos/test/dog/9.jpg       # train, val and test above them are splits

    list_folder("photos/", Declared())

The names of the folders are a public declaration: they are published with the synthetic images. They are put in their
natural order (2 before 10) unless `classes` declares another, which may also name classes without a folder.

What operating systems leave behind (Thumbs.db, .DS_Store, __MACOSX, hidden files) is passed over and counted.
Everything else in the folder of a class has to be an image; whether it is, is found out when it is read.
"""

from __future__ import annotations

import collections
import os
import re
from pathlib import Path

import numpy as np
import PIL.Image

from tfdpgen.data.dataset import DataError, check_class_names
from tfdpgen.data.declared import Declared
from tfdpgen.data.listing import SPLITS, Listing

_SYSTEM = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip
_DIGITS = re.compile(r"(\d+)")


def list_folder(path: str | os.PathLike[str], declared: Declared) -> tuple[Listing, str]:
    """The image files in a folder.

    Args:
      path: of the folder.
      declared: `classes` or `num_classes`, where they are not what the folders say.

    Returns:
      The list, in the natural order of classes and the order of file names in each; and a line that says what was
      passed over, or an empty one.

    Raises:
      DataError: if the folders are not as above; the message names the one, and the flag that helps.
    """
    root = Path(path)
    passed_over: dict[str, str] = {}  # path: what it is
    folders, stray = _visible(root, passed_over)
    by_split = {None: root}
    if folders and all(name.lower() in SPLITS for name in folders):
        by_split = _splits(root, folders, passed_over)
    elif folders and (images := [name for name in stray if _is_image_name(name)]):
        raise DataError(
            f"{root} should hold its images in one sub-folder for each class; {images[0]} lies beside them "
            f"({len(images)} such files). Move it into the folder of its class, or name files and labels in a CSV."
        )
    tree = {split: _classes(folder, passed_over) for split, folder in by_split.items()}
    classes = _class_names(root, tree, declared)
    num_classes = declared.fact("num_classes", len(classes), root)

    files: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    for split, found in tree.items():
        for label, name in enumerate(classes):
            inside = found.get(name, [])
            files += inside
            labels += [label] * len(inside)
            splits += [split or ""] * len(inside)
    line = ""
    if passed_over:
        counts = collections.Counter(passed_over.values()).most_common(5)
        names = ", ".join(f"{count} {name}" for name, count in counts)
        line = f"{root}: passed over what operating systems left there, {len(passed_over)} in all ({names})."
    listing = Listing(root, files, np.array(labels, np.int64), num_classes, classes, None if None in tree else splits)
    return listing, line


def list_images(path: str | os.PathLike[str]) -> list[str]:
    """The image files in a folder that has no sub-folders, sorted; none where it has some."""
    folders, files = _visible(Path(path), {})
    return [] if folders else [os.path.join(path, file) for file in files if _is_image_name(file)]


def natural(name: str) -> tuple[list[str | int], str]:
    """The key by which names are sorted so that 2 comes before 10."""
    return [int(part) if i % 2 else part for i, part in enumerate(_DIGITS.split(name))], name


def _visible(folder: Path, passed_over: dict[str, str]) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, sorted, without those of operating systems."""
    folders, files = [], []
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder} should be a folder that this user may read; got {error}.") from error
    for entry in entries:
        if entry.name.lower() in _SYSTEM:
            passed_over[entry.path] = entry.name.strip()
        elif entry.name.startswith("."):
            passed_over[entry.path] = entry.name if entry.name == ".DS_Store" else "hidden"
        else:
            (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def _splits(root: Path, names: list[str], passed_over: dict[str, str]) -> dict[str | None, Path]:
    """The folder of each split."""
    found: dict[str | None, Path] = {}
    for name in names:
        split = SPLITS[name.lower()]
        if split in found:
            raise DataError(
                f"{root} should have one folder for each split; {found[split].name} and {name} are both {split}."
            )
        found[split] = root / name
        folders, files = _visible(root / name, passed_over)
        if not folders:
            raise DataError(
                f"{root / name} should hold one sub-folder of images for each class, since its name is that of a "
                f"split; got {len(files)} files and no sub-folder. Sort them into classes, name files, labels and "
                "splits in a CSV, or rename the folder if it is a class."
            )
    if "train" not in found:
        raise DataError(f"{root} should have a folder train beside {', '.join(names)}, which are names of splits.")
    return found


def _classes(root: Path, passed_over: dict[str, str]) -> dict[str, list[str]]:
    """The files of each class."""
    folders, _ = _visible(root, passed_over)
    tree = {}
    for name in folders:
        inside, files = _visible(root / name, passed_over)
        if inside:
            raise DataError(
                f"{root / name / inside[0]} should be an image; it is a folder. A folder of images holds one "
                "sub-folder a class and nothing deeper, but for train, val and test above the classes."
            )
        tree[name] = [os.path.join(root, name, file) for file in files]
    return tree


def _class_names(root: Path, tree: dict[str | None, dict[str, list[str]]], declared: Declared) -> tuple[str, ...]:
    """The names of the classes in the order of their labels."""
    first = tree.get("train", tree.get(None, {}))
    everywhere = {name for found in tree.values() for name in found}
    if declared.classes:
        if unknown := sorted(everywhere - set(declared.classes)):
            raise DataError(
                f"{root} should hold folders of the declared `classes` {','.join(declared.classes)} only; it also "
                f"holds {unknown[0]!r}. Add it to `--classes`, or remove it."
            )
        return declared.classes
    if len(first) < 2:
        raise DataError(
            f"{root} should hold one sub-folder of images for each class, at least 2; got {len(first)}. "
            "The names of the sub-folders become the names of the classes; `--classes` declares those that are empty."
        )
    for name in sorted(everywhere - set(first)):
        raise DataError(
            f"{root} has a class {name!r} outside train and none in it, which may be a slip of the pen. Rename it, or "
            "declare every class by `--classes`."
        )
    check_class_names(sorted(first), f"{root}: names of folders")
    folded: dict[str, str] = {}
    for name in sorted(first):
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise DataError(
                f"{root} has the classes {other!r} and {name!r}, which differ in case alone. Merge them, or declare "
                "both by `--classes`."
            )
    for name, files in first.items():
        if not files:
            raise DataError(
                f"{root / name} should hold the images of its class; it is empty. Fill it, remove it, or declare every "
                "class by `--classes`."
            )
    return tuple(sorted(first, key=natural))


def _is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    PIL.Image.init()
    return Path(name).suffix.lower() in {*PIL.Image.EXTENSION, ".dcm", ".dicom"} - {".pdf"}
