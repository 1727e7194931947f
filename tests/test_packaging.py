"""What is installed, pinned and imported; and what the image is built from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tfdpgen.installation import TENSORFLOW_PRIVACY, problem_with_environment, tensorflow_privacy

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
ENTRIES = re.findall(r"^\S+==.*(?:\n    .*)*", LOCK, re.MULTILINE)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires("tfdpgen") or []]


def _is_of_flower(requirement: Requirement) -> bool:
    """Whether only the extra `federated` asks for it, which is not locked."""
    marker = requirement.marker
    return marker is not None and not any(
        marker.evaluate({"extra": extra}) for extra in ("", "dev", "dicom", "kubeflow", "test")
    )


def _skip_beside_flower() -> None:
    """Skips a test of versions where Flower's are installed."""
    if importlib.util.find_spec("flwr") is not None:
        pytest.skip("Flower is installed, whose pins are of older packages than the lock's")


def test_lock_pins_every_entry_by_hash_and_names_no_address() -> None:
    assert len(ENTRIES) > 100
    without = [entry for entry in ENTRIES if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    assert not without
    assert "://" not in LOCK
    outside = re.sub(r"^\S+==.*(?:\n    .*)*", "", LOCK, flags=re.MULTILINE).split("\n")
    assert all(line.startswith("#") or not line for line in outside), "something is neither pinned nor a comment"


def test_lock_holds_a_fitting_version_of_every_requirement() -> None:
    pins: dict[str, list[str]] = {}
    for entry in ENTRIES:  # a package may be pinned once for each Python
        pins.setdefault(canonicalize_name(entry.split("==")[0]), []).append(re.split(r"[=\s]+", entry)[1])
    locked = [requirement for requirement in _requirements() if not _is_of_flower(requirement)]
    requirements = [*locked, Requirement(TENSORFLOW_PRIVACY)]
    assert len(locked) < len(_requirements())
    assert {"tensorflow", "kfp", "pytest"} <= {requirement.name for requirement in requirements}
    unmet = [
        str(requirement)
        for requirement in requirements
        if not all(map(requirement.specifier.contains, pins.get(canonicalize_name(requirement.name), ["0"])))
    ]
    assert not unmet, "run `make lock`"


def test_what_is_installed_is_what_is_locked() -> None:
    """In an environment that `make setup` made: every version, tensorflow-privacy's without its own pins included."""
    _skip_beside_flower()
    wrong = {}
    for entry in ENTRIES:
        name, _, rest = entry.partition("==")
        version, _, marker = rest.partition("\n")[0].rstrip(" \\").partition(" ; ")
        if not marker or Marker(marker).evaluate():
            try:
                installed = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                installed = "nothing"
            if installed != version:
                wrong[name] = (installed, version)
    assert not wrong


def test_run_time_part_of_the_lock_is_complete_and_lean() -> None:
    run_time, _, extras = LOCK.partition("# ---- extras")
    names = {canonicalize_name(name) for name in re.findall(r"^(\S+)==", run_time, re.MULTILINE)}
    needed = {canonicalize_name(r.name) for r in _requirements() if not r.marker}
    assert needed <= names
    assert "kfp" in names, "the image is made of this part, and `tfdpgen kubeflow` works in it"
    assert "pytest==" in extras
    assert not names & {"pytest", "ruff", "uv"}


def test_the_pythons_that_people_have_are_accepted() -> None:
    accepted = SpecifierSet(importlib.metadata.metadata("tfdpgen")["Requires-Python"])
    assert {version for version in ("3.10.14", "3.11.2", "3.12.3", "3.13.5", "3.14.0") if version in accepted} == {
        "3.11.2", "3.12.3", "3.13.5",
    }  # fmt: skip


@pytest.mark.parametrize("script", ["setup.py", "scripts/bootstrap.py"])
def test_another_python_gets_one_sentence_with_the_reason(script: str) -> None:
    run = f"import runpy, setuptools, sys; sys.version_info = (3, 14, 1); sys.argv = [{script!r}, 'unused']; "
    outcome = _python("-c", run + f"runpy.run_path({script!r}, run_name='__main__')")
    assert outcome.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13" in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_library_imports_no_orchestrator() -> None:
    """Every module of the library in one fresh process: neither at its top nor by way of another one."""
    program = (
        "import pkgutil, sys, importlib, tfdpgen\n"
        "names = [m.name for m in pkgutil.walk_packages(tfdpgen.__path__, 'tfdpgen.')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names), [m for m in ('apache_beam', 'kfp', 'ml_metadata') if m in sys.modules])"
    )
    outcome = _python("-c", program)
    assert outcome.returncode == 0, outcome.stderr
    count, _, found = outcome.stdout.strip().splitlines()[-1].partition(" ")
    assert int(count) > 5
    assert found == "[]"


def test_wheel_would_hold_every_module_and_template() -> None:
    folders = {path.parent for name in ("tfdpgen", "components", "pipelines") for path in (ROOT / name).rglob("*.py")}
    assert len(folders) > 5
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()], "setup.py overlooks these"
    assert (ROOT / "tfdpgen" / "py.typed").exists()
    assert [path.name for path in (ROOT / "tfdpgen" / "templates").iterdir()]
    assert '"py.typed", "templates/*"' in (ROOT / "setup.py").read_text()
    assert '"pipelines": ["flower_app/*.toml"]' in (ROOT / "setup.py").read_text()


def test_the_installed_command_is_there() -> None:
    run = (
        "import importlib.metadata, sys, setuptools; from distutils.core import run_setup; sys.argv = ['setup.py'];\n"
        "(script,) = run_setup('setup.py', stop_after='init').entry_points['console_scripts']\n"
        "name, _, value = script.partition('='); sys.argv = [name, '--help']\n"
        "importlib.metadata.EntryPoint(name, value, 'console_scripts').load()()"
    )
    outcome = _python("-c", run)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("usage: tfdpgen COMMAND")


def test_image_is_slim_pinned_and_not_root() -> None:
    steps = re.findall(r"^([A-Z]+) (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    bases = [value.split()[0] for step, value in steps if step == "FROM"]
    assert bases
    assert all(base == "python:3.13-slim" for base in bases)
    users = [value for step, value in steps if step == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert any("scripts/bootstrap.py" in value for step, value in steps if step == "RUN")
    assert "--require-hashes" in (ROOT / "scripts" / "bootstrap.py").read_text()


def test_packages_fit_each_other_but_for_the_pins_of_tensorflow_privacy() -> None:
    _skip_beside_flower()
    outcome = _python("-m", "pip", "check")
    complaints = [line for line in outcome.stdout.splitlines() if line and "No broken requirements" not in line]
    assert not [line for line in complaints if not line.lower().startswith("tensorflow-privacy 0.9.0 ")], complaints


def _in_a_fresh_process(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=inherited | environment
    )


def test_importing_tfdpgen_selects_keras_2_whatever_the_environment_says() -> None:
    program = "import tensorflow as tf, tfdpgen; print(tf.keras.Model.__module__)"
    outcome = _in_a_fresh_process(program, TF_USE_LEGACY_KERAS="0")
    assert outcome.stdout.startswith("tf_keras."), outcome.stderr


def test_where_keras_3_was_there_first_a_sentence_says_what_to_do() -> None:
    outcome = _in_a_fresh_process("import tensorflow as tf; tf.keras.Model; import tfdpgen")
    assert outcome.returncode == 1
    assert "Import tfdpgen before anything uses tf.keras, or set" in outcome.stderr.splitlines()[-1]


def test_without_tensorflow_privacy_a_sentence_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow_privacy" else find_spec(name)
    )
    command = f"pip install --no-deps --ignore-requires-python {TENSORFLOW_PRIVACY}"
    with pytest.raises(ImportError, match=re.escape(command)):
        tensorflow_privacy("privacy.optimizers.dp_optimizer_keras")
    assert command in (problem_with_environment() or "")
    monkeypatch.undo()
    assert problem_with_environment() is None
