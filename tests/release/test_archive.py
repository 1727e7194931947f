"""Files of somebody else: nothing that they name is imported or called, and nothing else is read."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.release import UntrustedArchiveError, load_network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    images = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(2, 3, activation="relu")(images)
    x = tf.keras.layers.Flatten()(x)[:, 3:]
    x = tf.concat([tf.math.square(x), tf.one_hot(tf.cast(x[:, 0], tf.int64), 4)], 1)
    network = tf.keras.Model(images, tf.keras.layers.Dense(3, name="last")(x))
    network.save(tmp_path / "network.keras")
    return tmp_path / "network.keras"


def _changed(path: Path, change: Callable[[dict[str, Any]], Any], **members: bytes) -> Path:
    """A copy whose configuration was changed, with further members."""
    other = path.with_name("other.keras")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as written:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            written.writestr(name, members.pop(name, content))
        for name, content in members.items():
            written.writestr(name, content)
    return other


def _layer(config: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == kind)


def test_what_was_saved_is_loaded(saved: Path) -> None:
    images = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(load_network(saved)(images), tf.keras.models.load_model(saved)(images))


def test_what_a_file_names_is_not_imported(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payload.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = {"module": "payload", "class_name": "Network", "registered_name": None}
    other = _changed(saved, lambda config: config.update(named))
    with pytest.raises(UntrustedArchiveError, match=r"names payload\.Network"):
        load_network(other)
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(TypeError):
        tf.keras.models.load_model(other, compile=False, safe_mode=True)
    assert (tmp_path / "ran").exists()  # which is why safe_mode is not enough


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Dense", {"module": "os", "class_name": "system"}),
        ("Dense", {"module": "keras.layers", "class_name": "Lambda"}),
        ("Dense", {"module": "keras.layers", "class_name": "deserialize"}),
        ("Dense", {"module": "keras.layers", "class_name": "StringLookup"}),
        ("Dense", {"module": "keras.utils", "class_name": "get_file"}),
        ("Dense", {"module": "tf_keras.src.utils.data_utils", "class_name": "Functional"}),
        ("Dense", {"module": "os", "registered_name": "tfdpgen>Layer"}),
        ("Dense", {"module": None, "class_name": "__lambda__"}),
        ("Dense", {"module": None, "class_name": "__typespec__"}),
        ("Dense", {"module": ["keras.layers"]}),
        ("TFOpLambda", {"config": {"function": "io.write_file", "name": "x"}}),
        ("TFOpLambda", {"config": {"function": "py_function", "name": "x"}}),
        ("TFOpLambda", {"config": {"function": ["math.square"], "name": "x"}}),
    ],
)
def test_nothing_but_layers_and_operations_that_compute_is_let_through(
    saved: Path, kind: str, values: dict[str, Any]
) -> None:
    other = _changed(saved, lambda config: _layer(config, kind).update(values))
    with pytest.raises(UntrustedArchiveError, match="not known to compute on tensors alone"):
        load_network(other)


def test_objects_are_found_however_deep_they_lie(saved: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        _layer(config, "Dense")["inbound_nodes"].append([[{"x": [{"module": "os", "class_name": "popen"}]}]])

    with pytest.raises(UntrustedArchiveError, match=r"os\.popen"):
        load_network(_changed(saved, change))


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "assets/vocabulary.txt", "config.json"])
def test_an_archive_has_three_members_and_no_paths(saved: Path, name: str) -> None:
    other = saved.with_name("other.keras")
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(other, "w") as written:
        for member in archive.namelist():
            written.writestr(member, archive.read(member))
        written.writestr(name, b"{}")
    with pytest.raises(UntrustedArchiveError, match="and nothing else"):
        load_network(other)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual", "packed", "no HDF5"])
def test_weights_lie_in_the_archive(saved: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.zeros(3)
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense")
        if kind == "external link":
            group["vars"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
        if kind == "soft link":
            group["vars"] = h5py.SoftLink("/elsewhere")
        if kind == "external data":
            group.create_dataset("vars", (3,), "f8", external=[(str(tmp_path / "secret.h5"), 0, 24)])
        if kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (3,))
            group.create_virtual_dataset("vars", layout)
        if kind == "packed":
            group.create_dataset("vars", (3000, 3000), "f4", compression="gzip")
    content = b"no weights" if kind == "no HDF5" else path.read_bytes()
    with pytest.raises(UntrustedArchiveError, match="weights"):
        load_network(_changed(saved, lambda config: None, **{"model.weights.h5": content}))


def test_what_becomes_much_larger_is_refused(saved: Path) -> None:
    other = saved.with_name("other.keras")
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as written:
        for member in archive.namelist():
            written.writestr(member, archive.read(member) + b" " * 2**24 * (member == "metadata.json"))
    with pytest.raises(UntrustedArchiveError, match="unpacked, of"):
        load_network(other)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"not a zip", b"PK\x05\x06" + b"\0" * 18):
        (tmp_path / "x.keras").write_bytes(content)
        with pytest.raises(UntrustedArchiveError):
            load_network(tmp_path / "x.keras")
