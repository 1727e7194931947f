"""Networks from files that somebody else may have written: what a file says is checked before Keras reads it.

    generator = load_network("release/generator.keras")         # UntrustedArchiveError: what it holds, and why not

A .keras file names the classes and functions that its network is made of, and Keras imports whatever module it names,
which runs that module's code, and takes what it finds there for a layer. `safe_mode` refuses Python code (Lambda) and
nothing else. So only layers, initializers and operations that compute on tensors are let through here, and
a file that has anything but a network, or weights that lie in other files, is refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import tensorflow as tf

_MEMBERS = {"config.json", "metadata.json", "model.weights.h5"}
_MOST_BYTES = 2**30  # of what is unpacked
_MOST_RATIO = 100  # of what is unpacked to what is packed: weights hardly become smaller, and a configuration 20 times
_MODELS = {"Functional", "Sequential"}
_MODEL_MODULES = ("keras", "tf_keras.src.engine.functional", "tf_keras.src.engine.sequential")
_OP_LAYERS = {"TFOpLambda", "SlicingOpLambda"}
_OP_MODULE = "tf_keras.src.layers.core.tf_op_layer"
_OP_FAMILIES = ("__operators__.", "math.", "linalg.", "nn.")
_OPS = {
    "broadcast_to",
    "cast",
    "clip_by_value",
    "compat.v1.squeeze",
    "compat.v1.transpose",
    "concat",
    "expand_dims",
    "fill",
    "gather",
    "identity",
    "image.resize",
    "one_hot",
    "ones",
    "ones_like",
    "pad",
    "repeat",
    "reshape",
    "shape",
    "split",
    "squeeze",
    "stack",
    "tile",
    "transpose",
    "unstack",
    "where",
    "zeros",
    "zeros_like",
}
_NOT_LAYERS = {"Lambda", "TextVectorization", "StringLookup", "IntegerLookup"}  # which run code, or read files
_OBJECTS = ("keras.initializers", "keras.regularizers", "keras.constraints", "keras.mixed_precision")
_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}


class UntrustedArchiveError(ValueError):
    """A file holds more than a network that only computes; nothing of it was loaded."""


def load_network(path: str | os.PathLike[str]) -> Any:
    """The Keras model in a .keras file; without its optimizer and losses.

    Raises:
      UntrustedArchiveError: if the file is no .keras file, or names anything that is not known to compute on tensors
        alone.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if set(names) != _MEMBERS or len(names) != len(_MEMBERS):
                raise UntrustedArchiveError(f"{path} should hold {sorted(_MEMBERS)} and nothing else; got {names}.")
            unpacked, packed = (sum(getattr(each, of) for each in members) for of in ("file_size", "compress_size"))
            if unpacked > min(_MOST_BYTES, _MOST_RATIO * packed):
                raise UntrustedArchiveError(
                    f"{path} would have {unpacked:,} bytes, unpacked, of {packed:,}; at most {_MOST_BYTES:,} are read, "
                    f"and {_MOST_RATIO} times what is packed."
                )
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
    except (zipfile.BadZipFile, ValueError, KeyError, RecursionError) as error:
        if isinstance(error, UntrustedArchiveError):
            raise
        raise UntrustedArchiveError(f"{path} is no .keras file: {error}.") from None
    for named in _objects(config):
        if reason := _refused(named):
            raise UntrustedArchiveError(f"{path} names {reason}, which is not known to compute on tensors alone.")
    _check_weights(path, weights)
    return tf.keras.models.load_model(path, compile=False, safe_mode=True)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a configuration that names a class or a function."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value or "module" in value or "registered_name" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _refused(named: dict[str, Any]) -> str:
    """What is wrong with an object; empty where nothing is."""
    module, name, registered = named.get("module"), named.get("class_name"), named.get("registered_name")
    config = named.get("config")
    said = f"{module}.{name}" if module else str(registered or name)
    match module, name:
        case None, str() if name in _VALUES:
            return ""
        case str(), str() if module in _MODEL_MODULES and name in _MODELS:
            return ""
        case str(), str() if module == _OP_MODULE and name in _OP_LAYERS:
            function = config.get("function") if isinstance(config, dict) else None
            is_known = isinstance(function, str) and (function in _OPS or function.startswith(_OP_FAMILIES))
            return "" if is_known else f"the operation {function!r}"
        case "keras.layers", str() if name not in _NOT_LAYERS and _is_a(tf.keras.layers, name, tf.keras.layers.Layer):
            return ""
        case str(), str() if module in _OBJECTS and name != "function" and name.isidentifier():
            return ""
        case "builtins" | "keras.activations", "function":
            return (
                "" if isinstance(config, str) and hasattr(tf.keras.activations, config) else f"the function {config!r}"
            )
    return said


def _is_a(module: Any, name: str, kind: type) -> bool:
    found = getattr(module, name, None)
    return isinstance(found, type) and issubclass(found, kind)


def _check_weights(path: str | os.PathLike[str], content: bytes) -> None:
    """Refuses weights that are read from other files.

    Raises:
      UntrustedArchiveError: if there are such, or the content is no HDF5.
    """

    def visit(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise UntrustedArchiveError(f"{path} has weights {name!r} that are a link.")
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item)
            elif item.external or item.is_virtual:
                raise UntrustedArchiveError(f"{path} has weights {name!r} that lie in another file.")
            elif item.nbytes > item.id.get_storage_size():
                raise UntrustedArchiveError(f"{path} has weights {name!r} that become larger when they are read.")

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            visit(file)
    except OSError as error:
        raise UntrustedArchiveError(f"{path} has weights that cannot be read: {error}.") from None
