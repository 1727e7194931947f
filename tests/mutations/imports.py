"""What every run of tests imports, and what takes most of its time: imported once, in the process that runs fork from.

TensorFlow starts no thread before its first operation, so that a process that has only imported it may be forked.
"""

from __future__ import annotations

import importlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

for name in ("dp_accounting", "hypothesis", "pytest", "scipy.stats", "tensorflow", "tensorflow_privacy"):
    importlib.import_module(name)
