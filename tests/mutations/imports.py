"""What every run of tests imports, and what takes most of its time: imported once, in the process that runs fork from.

TensorFlow starts no thread before its first operation, so that a process that has only imported it may be forked.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dp_accounting  # noqa: F401
import hypothesis  # noqa: F401
import pytest  # noqa: F401
import scipy.stats  # noqa: F401
import tensorflow  # noqa: F401  # pyright: ignore[reportMissingImports]
import tensorflow_privacy  # noqa: F401
