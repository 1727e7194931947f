"""`python -m tfdpgen.attacks.audit`: a line for each audit, and an exit status that says what follows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfdpgen.attacks.audit import OPTIMIZERS, canary_plan, choose_guesses
from tfdpgen.attacks.audit import __main__ as command_line
from tfdpgen.privacy import PrivacyBudget


def test_claim_bound_and_guesses_are_printed_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--epsilon=4", "--canaries=2000", "--seed=0", "--runs=2"]
    assert command_line.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    made = choose_guesses(canary_plan(PrivacyBudget(4.0, 1e-5), 2_000), 1e-5).total
    rows = [line.split() for line in lines[1:3]]
    for claimed, bound, gaussian, independent, right, canaries, _ in rows:
        assert float(claimed) == pytest.approx(4.0, abs=0.01)
        assert 0.5 < float(bound) < float(gaussian) < float(independent) < 4
        assert right.endswith(f"/{made}")
        assert canaries == "2000"
    assert rows[0][1:5] != rows[1][1:5]
    assert "0 of 2 bounds" in lines[-1]
    assert command_line.main(flags[:-1]) == 0  # the first of them again: the seed decides all
    assert capsys.readouterr().out.splitlines()[1].split()[:6] == rows[0][:6]


def test_a_method_is_audited_on_a_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--adversary=black_box", "--dataset=digits", "--epsilon=3", "--canaries=200", "--seed=0"]
    assert command_line.main(flags) == 0
    metrics = capsys.readouterr().out.splitlines()[1].split()
    assert metrics[3] == "-"
    assert metrics[4].endswith("/40")


def test_a_refuted_claim_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class HalfNoise(OPTIMIZERS["sgd"]):
        def __init__(self, l2_norm_clip: float, noise_multiplier: float, **kwargs: object) -> None:
            super().__init__(l2_norm_clip, noise_multiplier / 2, **kwargs)

    monkeypatch.setitem(OPTIMIZERS, "sgd", HalfNoise)
    assert command_line.main(["--epsilon=1", "--canaries=20000", "--seed=0"]) == 1
    assert "it is refuted" in capsys.readouterr().out


def test_every_optimizer_can_be_named() -> None:
    assert set(command_line.OPTIMIZER_NAMES) == set(OPTIMIZERS)


@pytest.mark.parametrize("flag", ["--bad", "--optimizer=nosuch", "--epsilon=much"])
def test_a_bad_flag_is_refused_before_tensorflow_starts(flag: str) -> None:
    run = (
        "import runpy, sys; sys.argv = ['audit', sys.argv[1]]\n"
        "try: runpy.run_module('tfdpgen.attacks.audit', run_name='__main__')\n"
        "finally: print([name for name in ('tensorflow', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", run, flag], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert flag.split("=")[0] in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--canaries=0", "--runs=0", "--delta=0.1", "--sampling_probability=2"])
def test_a_bad_value_is_said_on_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--canaries=50", flag]) == 2
    assert capsys.readouterr().err.count("\n") == 1
