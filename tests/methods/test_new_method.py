"""The tutorial's method is a method: as short as the page says, private, and better than noise."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods import method, train
from tfdpgen.privacy import PrivacyBudget

_PAGE = Path(__file__).parents[2] / "docs" / "new_method.md"


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's module, imported; its text."""
    (text,) = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    path = tmp_path / "dp_merf.py"
    path.write_text(text)
    monkeypatch.setattr(method, "_REGISTRY", dict(method._REGISTRY))
    spec: Any = importlib.util.spec_from_file_location("dp_merf", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return text


def test_it_has_at_most_60_lines_of_code(tutorial: str) -> None:
    lines = [line for line in tutorial.splitlines() if line.strip() and not line.lstrip().startswith(("#", '"""'))]
    assert len(lines) <= 60


def test_it_trains_and_what_it_makes_teaches(tutorial: str) -> None:
    digits = load_digits()
    images = (digits.images[..., None] * 15.9375).round().astype(np.uint8)
    private = LabeledDataset(images[:1400], digits.target[:1400].astype(np.int64), DataSpec((8, 8, 1), 10))
    release = train("dp_merf", private, PrivacyBudget(3.0, 1e-4), verbose=0)
    assert 0.99 * 3.0 < release.statement.epsilon <= 3.0
    labels = np.arange(1000) % 10
    made = release.sample(labels, seed=0).reshape(1000, -1)
    right = SVC().fit(made, labels).score(images[1400:].reshape(-1, 64), digits.target[1400:])
    assert right > 0.5  # .1 is chance
