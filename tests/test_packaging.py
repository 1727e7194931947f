"""What is installed, pinned and imported; and what the image is built from."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
ENTRIES = re.findall(r"^\S+==.*(?:\n    .*)*", LOCK, re.MULTILINE)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires("tfdpgen") or []]


def test_lock_pins_every_entry_by_hash_and_names_no_address() -> None:
    assert len(ENTRIES) > 100
    without = [entry for entry in ENTRIES if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    assert not without
    assert "://" not in LOCK
    outside = re.sub(r"^\S+==.*(?:\n    .*)*", "", LOCK, flags=re.MULTILINE).split("\n")
    assert all(line.startswith("#") or not line for line in outside), "something is neither pinned nor a comment"


def test_lock_holds_a_fitting_version_of_every_requirement() -> None:
    pins = {canonicalize_name(entry.split("==")[0]): re.split(r"[=\s]+", entry)[1] for entry in ENTRIES}
    requirements = _requirements()
    assert {"tensorflow", "kfp", "pytest"} <= {requirement.name for requirement in requirements}
    unmet = [str(r) for r in requirements if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))]
    assert not unmet, "run `make lock`"


def test_run_time_part_of_the_lock_is_complete_and_lean() -> None:
    run_time, _, extras = LOCK.partition("# ---- extras")
    names = {canonicalize_name(name) for name in re.findall(r"^(\S+)==", run_time, re.MULTILINE)}
    needed = {canonicalize_name(r.name) for r in _requirements() if not r.marker}
    assert needed <= names
    assert "kfp" in names, "the image is made of this part, and Kubeflow runs the steps in it"
    assert "pytest==" in extras
    assert not names & {"pytest", "ruff", "uv"}


def test_only_python_3_11_is_accepted() -> None:
    accepted = SpecifierSet(importlib.metadata.metadata("tfdpgen")["Requires-Python"])
    assert "3.11.2" in accepted
    assert "3.12.0" not in accepted
    assert "3.10.14" not in accepted


@pytest.mark.parametrize("script", ["setup.py", "scripts/bootstrap.py"])
def test_another_python_gets_one_sentence_with_the_reason(script: str) -> None:
    run = f"import runpy, setuptools, sys; sys.version_info = (3, 12, 1); sys.argv = [{script!r}, 'unused']; "
    outcome = _python("-c", run + f"runpy.run_path({script!r}, run_name='__main__')")
    assert outcome.returncode == 1
    assert "tensorflow-privacy supports no version from 3.12 on" in outcome.stderr
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


def test_image_is_slim_pinned_and_not_root() -> None:
    steps = re.findall(r"^([A-Z]+) (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    bases = [value.split()[0] for step, value in steps if step == "FROM"]
    assert bases
    assert all(base == "python:3.11-slim" for base in bases)
    users = [value for step, value in steps if step == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert any("scripts/bootstrap.py" in value for step, value in steps if step == "RUN")
    assert "--require-hashes" in (ROOT / "scripts" / "bootstrap.py").read_text()


def test_pip_check_is_clean() -> None:
    outcome = _python("-m", "pip", "check")
    assert outcome.returncode == 0, outcome.stdout
