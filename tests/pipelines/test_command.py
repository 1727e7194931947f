"""The command `tfdpgen`: it finds its sub-commands, and help and mistakes cost no start of TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import command

_ROOT = Path(__file__).resolve().parents[2]
_NAMES = ("run", "audit", "account", "ledger", "lineage", "export", "kubeflow")


def test_help_lists_each_command_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert command.main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert tuple(line.split()[0] for line in lines if line.startswith("  ")) == _NAMES
        assert all(len(line.split()) > 4 for line in lines if line.startswith("  "))


@pytest.mark.parametrize("wrong", ["runn", "--epsilon=1", "ledgers"])
def test_a_mistyped_command_gets_the_list_and_exit_code_2(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert wrong in line
    assert all(name in line for name in _NAMES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run", ["--dataset", "--dry_run", "--epsilon"]),
        ("audit", ["--canaries", "--adversary"]),
        ("account", ["noise", "batch_size"]),
        ("ledger", ["open", "status", "history", "docs/ledger.md"]),
        ("kubeflow", ["--output", "--image"]),
    ],
)
def test_every_command_has_help_under_its_own_name(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command.main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code in (0, None)
    assert text.startswith(f"usage: tfdpgen {name} ")
    assert not [word for word in words if word not in text]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--eps=1"], "tfdpgen run: Unknown command line flag 'eps'"),
        (["run", "digits"], "tfdpgen run: unexpected argument 'digits'"),
        (["audit", "--epsilom=1"], "unrecognized arguments: --epsilom=1"),
        (["account", "nois"], "invalid choice: 'nois'"),
        (["kubeflow", "--out=x"], "tfdpgen kubeflow: Unknown command line flag 'out'"),
        (["ledger", "spent"], "invalid choice: 'spent'"),
        (["ledger", "open", "--dataset=digits", "--epsilon=1", "--delta=2"], "`delta` should lie strictly between"),
    ],
)
def test_bad_flags_end_with_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = command.main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_an_answer_reaches_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["--num_examples=1000", "--batch_size=10", "--steps=5", "--noise_multiplier=2"]
    assert command.main(["account", "epsilon", *plan]) == 0
    assert "epsilon: " in capsys.readouterr().out
    assert command.main(["account", "epsilon", *plan, "--delta=0.5"]) == 2


def test_help_and_a_wrong_name_import_nothing_heavy() -> None:
    program = (
        "import sys; from pipelines import command; command.main(['--help']); command.main(['x']);\n"
        "for arguments in ('run', '--help'), ('run', '--eps=1'), ('kubeflow', '--help'), ('ledger', '-x'):\n"
        "    try: command.main(arguments)\n"
        "    except SystemExit: pass\n"
        "print([m for m in ('tensorflow', 'apache_beam', 'dp_accounting', 'sklearn', 'kfp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
