"""Every component can be run alone, and says what it takes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["ingest", "preflight", "train", "generate", "attack", "evaluate", "audit", "publish"])
def test_help(name: str) -> None:
    command = [sys.executable, "-m", f"components.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 0, done.stderr
    component = getattr(importlib.import_module(f"components.{name}"), name)
    text = " ".join(done.stdout.split())
    assert text.startswith(f"usage: python -m components.{name} ")
    assert component.summary in text
    for flag in (*component.inputs, *component.outputs):
        assert f"--{flag} DIR" in text
    for flag, parameter in component.parameters.items():
        assert f"--{flag}" in text
        assert parameter.help in text
    assert not done.stderr
