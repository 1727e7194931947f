"""The command `tfdpgen`: it finds its sub-commands, and help and mistakes cost no start of TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import command
from pipelines.show_ledger import main as show_ledger
from tfdpgen.privacy import Ledger, NoisyCounts, epsilon_of, read_ledger

_ROOT = Path(__file__).resolve().parents[2]
_NAMES = ("run", "audit", "account", "ledger", "kubeflow")


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
        ("ledger", ["--delta", "ledger.sqlite"]),
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
        (["ledger", "no/such.sqlite"], "there is no ledger 'no/such.sqlite'"),
        (["ledger", "--delta=2"], "`--delta` should lie strictly between 0 and 1; got 2"),
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


def test_the_ledger_is_shown_data_set_by_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger, event = Ledger(path), NoisyCounts(1, noise_multiplier=8.0).event
    ledger.reserve("a" * 64, event, delta=1e-5, purpose="train c_vae")
    ledger.reserve("b" * 64, event, delta=1e-6, purpose="published accuracies")
    ledger.reserve("a" * 64, event, delta=1e-5, purpose="train dp_gan")
    before = path.read_bytes()
    assert show_ledger([str(path)]) == 0
    text = capsys.readouterr().out
    assert path.read_bytes() == before
    first, second = text.split("Data set ")[1:]
    assert first.startswith("a" * 12 + "\n")
    assert second.startswith("b" * 12 + "\n")
    assert [line.split()[-1] for line in first.splitlines() if " train " in line] == [
        f"{epsilon_of(event, 1e-5):.3f}"
    ] * 2
    assert f"all together {ledger.spent('a' * 64, 1e-5):.3f} at delta 1e-05" in " ".join(first.split())
    assert f"all together {epsilon_of(event, 1e-6):.3f} at delta 1e-06" in " ".join(second.split())
    assert "never given back" in second

    (tmp_path / "output" / "internal").mkdir(parents=True)
    shutil.copy(path, tmp_path / "output" / "internal")
    assert show_ledger([str(tmp_path / "output")]) == 0  # a run's output_dir
    assert f"all together {ledger.spent('a' * 64, 1e-5):.3f}" in " ".join(capsys.readouterr().out.split())
    assert show_ledger([str(path), "--delta=0.001"]) == 0
    spent = ledger.spent("a" * 64, 1e-3)
    assert f"all together {spent:.3f} at delta 0.001" in " ".join(capsys.readouterr().out.split())


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no database")
    assert show_ledger([str(tmp_path / "notes.txt")]) == 2
    assert "should be a ledger of what has been spent" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "no database"
    Ledger(tmp_path / "empty.sqlite")
    assert show_ledger([str(tmp_path / "empty.sqlite")]) == 0
    assert "nothing has been spent" in capsys.readouterr().out


def test_entries_are_what_was_reserved(tmp_path: Path) -> None:
    event = NoisyCounts(1, noise_multiplier=8.0).event
    Ledger(tmp_path / "l").reserve("a", event, delta=1e-5, purpose="p")
    (entry,) = read_ledger(tmp_path / "l")
    assert (entry.dataset, entry.event, entry.delta, entry.purpose) == ("a", event, 1e-5, "p")
