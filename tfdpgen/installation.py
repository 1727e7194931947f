"""What has to be true of an environment before anything runs in it, and what to do where it is not.

    select_legacy_keras()                # by `import tfdpgen`: tf.keras is Keras 2 in this process
    tensorflow_privacy("privacy.optimizers.dp_optimizer_keras")
    if problem := problem_with_environment():
        sys.exit(problem)                # a command line: one sentence in place of a traceback

tensorflow-privacy's optimizers are those of Keras 2, which newer TensorFlow keeps under the name tf-keras. Its last
release declares pins that a newer TensorFlow breaks, though what is used of it runs there; so it is installed without
them. `import tensorflow_privacy` as a whole still asks for tensorflow-estimator, which is no more: the package is
imported in parts, as its `skip_tf_privacy_import` allows.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

TENSORFLOW_PRIVACY = "tensorflow-privacy==0.9.0"
_INSTALL_TENSORFLOW_PRIVACY = f"pip install --no-deps --ignore-requires-python {TENSORFLOW_PRIVACY}"
_KERAS_3 = (
    "tfdpgen needs Keras 2 (tf-keras), and TensorFlow has already started with Keras 3 in this process. Import tfdpgen "
    "before anything uses tf.keras, or set the environment variable TF_USE_LEGACY_KERAS=1."
)


def select_legacy_keras() -> None:
    """Makes `tf.keras` Keras 2 in this process and in those that it starts.

    Raises:
      ImportError: if TensorFlow has already made it Keras 3.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # noqa: TID251  # TensorFlow takes this choice in no other way
    tensorflow: Any = sys.modules.get("tensorflow")
    if tensorflow is not None and not tensorflow.keras.Model.__module__.startswith("tf_keras."):
        raise ImportError(_KERAS_3)


def tensorflow_privacy(module: str) -> Any:
    """A module of tensorflow-privacy, by its name within that package.

    Raises:
      ImportError: if the package is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("tensorflow_privacy") is None:
        raise ImportError(f"tensorflow-privacy is not installed. {_how_to_install()}")
    package: Any = sys  # where tensorflow-privacy looks for the attribute
    package.skip_tf_privacy_import = True
    try:
        return importlib.import_module(f"tensorflow_privacy.{module}")
    finally:
        del package.skip_tf_privacy_import


def problem_with_environment() -> str | None:
    """A sentence that names what is missing and the command that brings it; None where nothing is."""
    for name, package in (("tensorflow", "tensorflow"), ("tf_keras", "tf-keras"), ("dp_accounting", "dp-accounting")):
        if importlib.util.find_spec(name) is None:
            return f"{package} is not installed in {sys.prefix}. Install tfdpgen with: pip install ."
    if importlib.util.find_spec("tensorflow_privacy") is None:
        return f"tensorflow-privacy is not installed in {sys.prefix}. {_how_to_install()}"
    return None


def _how_to_install() -> str:
    """The command, and why it is not a dependency like others."""
    return (
        f"Install it with: {_INSTALL_TENSORFLOW_PRIVACY} (without its own pins, which are of an older TensorFlow; "
        "`make setup` does so)."
    )
