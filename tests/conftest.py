"""What every test starts from: a quiet TensorFlow on one thread, repeatable Hypothesis, MNIST where it is at hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

# TensorFlow reads these when it is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="tfdpgen-tests-")  # no test spends of this user's ledger

import hypothesis
import pytest

import tfdpgen  # noqa: F401  # before a test imports TensorFlow, since it selects Keras 2

hypothesis.settings.register_profile("local", deadline=None)
# In CI a counterexample is shown as found: shrinking one takes minutes where each try compiles a network.
_PHASES = tuple(phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.shrink)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, phases=_PHASES)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def fresh_ledger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has each test start with nothing spent: without --ledger, runs use the user's, which is found by this."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / f"data-{uuid4().hex}"))


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The TFDS data_dir that holds a prepared MNIST."""
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir:
        pytest.skip("TFDS_DATA_DIR is not set: it should name a TFDS data_dir that holds mnist")
    if not (Path(data_dir) / "mnist").is_dir():
        pytest.skip(f"TFDS_DATA_DIR={data_dir} holds no mnist: prepare it there with tfds.load('mnist')")
    return Path(data_dir)


@pytest.fixture
def kfp_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has kfp.local run pipelines in subprocesses of this interpreter, with their artifacts in tmp_path / "root".

    kfp's runner of subprocesses refuses container components, since it has no container; ours need this interpreter
    alone, which it puts in the place of python3.
    """
    from kfp import local
    from kfp.local.subprocess_task_handler import SubprocessTaskHandler

    monkeypatch.setattr(SubprocessTaskHandler, "validate_not_container_component", lambda *_: None)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))


@pytest.fixture
def eager_functions() -> Iterator[None]:
    """Has every `tf.function` run step by step, so that a test sees the values inside it."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
