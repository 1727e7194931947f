"""Packages with lazy names: what they say they have, they have, and a ledger costs no start of TensorFlow."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("tfdpgen.privacy", "tfdpgen.attacks", "tfdpgen.attacks.audit")


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_and_python_find_the_same_names(name: str) -> None:
    package = importlib.import_module(name)
    tree = ast.parse(Path(package.__file__ or "").read_text())
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: node.module for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(package.__all__) == sorted(declared)
    for each, module in declared.items():
        assert getattr(package, each) is getattr(importlib.import_module(module or ""), each)
    folder = Path(package.__file__ or "").parent
    assert not set(declared) & {path.stem for path in folder.iterdir()}, "a module would stand in the name's place"
    assert set(declared) <= set(dir(package))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'tfdpgen\.privacy' has no attribute 'Legder'"):
        _ = importlib.import_module("tfdpgen.privacy").Legder


@pytest.mark.parametrize(
    "line",
    [
        "import tfdpgen.privacy, tfdpgen.attacks",
        "from tfdpgen.privacy import Ledger, PrivacyBudget, GaussianSum, PrivacyUnit, epsilon_of",
        "from tfdpgen.attacks import privacy_loss_upper_bound",
        "import tfdpgen.privacy.accounting.__main__",
    ],
)
def test_tensorflow_is_not_imported(line: str) -> None:
    run = f"{line}; import sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", run]).returncode == 0
