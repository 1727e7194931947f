from __future__ import annotations

import contextlib
import dataclasses
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from pipelines import SynthesisConfig
from pipelines.config import PATH_FIELDS
from pipelines.local_run import absolute, called_as, command_line, describe, entry_point, flags_parser, run
from pipelines.resuming import README
from tfdpgen.files import folder_lock

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "local_run.py"


def _local_run(*flags: str) -> subprocess.CompletedProcess[str]:
    """The script, as a user calls it from somewhere else."""
    return subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, cwd="/")


def test_help_names_every_setting_with_its_default() -> None:
    done = _local_run("--help")
    text = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "Private labelled images in" in text
    for field in dataclasses.fields(SynthesisConfig):
        assert f"--{field.name} " in text.replace(",", "")  # Python 3.13 names a flag and its negation on one line
        assert f"(default: {field.default})" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epsilon=0"], "`epsilon` should be a finite number greater than 0; got 0.0"),
        (["--delta=1"], "`delta` should lie strictly between 0 and 1"),
        (["--epsilon=x"], "invalid float value: 'x'"),
        (["--dry_run", "--start_at=generate"], "`start_at` should be empty with `dry_run`"),
        (["--eps=1"], "Unknown command line flag 'eps'"),
        (["--epsilom", "1"], "Unknown command line flag 'epsilom'. Did you mean --epsilon?"),
        (["digits"], "unexpected argument 'digits'"),
        (["--epsilon", "1", "digits"], "unexpected argument 'digits'"),
        (["--num_synthetic=1"], "`num_synthetic` should be at least 12: a sixth of them tests"),
        (["--image_shape=28,28"], "`image_shape` should be 3 numbers (int) with commas between, as in 28,28,1; got"),
        (["--background=1,2"], "with commas between, as in 255 or 255,255,255; got '1,2'"),
        (["--image_shape=28,28,2"], "`image_shape` should be (height, width, channels)"),
        (["--num_classes=1"], "`num_classes` should be at least 2; got 1"),
        (["--resize=squeeze"], "`resize` should be one of error, crop, pad, stretch; got 'squeeze'"),
        (["--classes=cat,cat"], "`classes` should all differ"),
        (["--value_range=255,0"], "`value_range` should be finite (low, high)"),
        (["--method=gpt"], "`method` should be one of"),
        (["--dataset="], "`dataset` should not be empty"),
        (["--classifiers=svm"], "`classifiers` should be some of cnn, logistic_regression"),
        (["--publish_metrics_epsilon=-1"], "`epsilon` should be a finite number greater than 0; got -1.0"),
        (
            ["--publish_metrics_epsilon=1", "--publish_metrics=p1"],
            "`metrics` cannot hold p1: its classifier was trained",
        ),
        (["--publish_metrics_epsilon=1", "--insecure_reproducible"], "`publish_metrics_epsilon` should be 0 with"),
        (["--beam_args=--a='b"], "`beam_args` should be flags as in a shell"),
        (["--seed=9223372036854775808"], "`seed` should be at most 2147483647; got 9223372036854775808"),
        (["--num_synthetic=2147483648"], "`num_synthetic` should be at most 2147483647"),
        (["--attack_candidates=99999999999"], "`attack_candidates` should be at most"),
        (["--num_classes=-3000000000"], "`num_classes` should be at most 2147483647"),
        (["--", "--runer=FlinkRunner"], "it does not know --runer. Did you mean --runner?"),
        (["--", "--anything=1"], "it does not know --anything."),
        (["--", "--runner=FlinkRunner", "--flink_mastr=h"], "it does not know --flink_mastr. Did you mean --flink_ma"),
        (["--", "--runner=NoSuchRunner"], "`beam_args` should name a runner that Beam has; got 'NoSuchRunner'"),
        (["--", "--direct_num_workers=x"], "--direct_num_workers: invalid int value: 'x'"),
        (["--", "runner"], "`beam_args` should be flags of the form --flag=value; got 'runner'"),
        (
            ["--method=latent_gaussian"],
            "images of strokes need at least 16 pixels a side, on which they can be told; got image_shape (8,",
        ),
        (
            ["--dataset=a.npz", "--image_shape=32,32,3", "--method=latent_gaussian"],
            "have one channel; got image_shape (32, 32, 3). Take public images that are like the private ones",
        ),
        (
            ["--publish_metrics_epsilon=1", "--publish_metrics=accuracy"],
            "`publish_metrics` should name some of p2, p2_logistic_regression, p2_mlp",
        ),
        (
            ["--publish_metrics_epsilon=1", "--publish_metrics=p2_augmented"],
            "p2_gradient_boosting, which this run measures; got p2_augmented",
        ),
        (
            ["--public_dataset=fonts"],
            "`public_dataset` should be empty with `method` gaussian_mixture, which learns from no",
        ),
        (
            ["--method=latent_gaussian", "--public_dataset=digits", "--dataset=digits"],
            "`public_dataset` should be images that anybody may see; got 'digits', where the private `dataset`",
        ),
        (["--attack_shadow_folder=a"], "`attack_shadow_folder` should be empty without `attack_shadow_models`"),
        (["--start_at=train"], "`start_at` should be empty or one of generate, attack, evaluate, audit, publish"),
    ],
)
def test_bad_flags_end_with_one_line_and_exit_code_2(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        flags_parser(SynthesisConfig, "")(["local_run.py", *flags])
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert message in lines[-1]
    assert len(lines) <= 2


def test_flags_after_a_bare_dash_dash_go_to_beam() -> None:
    config = flags_parser(SynthesisConfig, "")(
        ["p", "--epsilon", "1", "--dataset=mnist", "--", "--runner=DirectRunner", "--job_name=b c"]
    )
    assert config == SynthesisConfig(epsilon=1.0, dataset="mnist", beam_args="--runner=DirectRunner '--job_name=b c'")


def test_a_job_server_may_have_flags_that_are_not_known_here() -> None:
    SynthesisConfig(beam_args="--runner=FlinkRunner --flink_master=h:1 --some_java_option=3")


def test_bad_flags_are_refused_without_tensorflow() -> None:
    code = "import sys; sys.argv[1:] = ['--epsilon=0']\ntry:\n    from pipelines.local_run import entry_point\n    "
    code += "entry_point()\nfinally:\n    print({'tensorflow', 'sklearn', 'apache_beam'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPT.parents[1])
    assert done.returncode == 2
    assert done.stdout == "set()\n"


def test_home_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths: dict[str, Any] = {name: f"~/{name}" for name in PATH_FIELDS}
    config = absolute(SynthesisConfig(**paths, attack_shadow_models=4, method="latent_gaussian"))
    assert [getattr(config, name) for name in PATH_FIELDS] == [str(tmp_path / name) for name in PATH_FIELDS]
    texts = [field.name for field in dataclasses.fields(SynthesisConfig) if field.type == "str"]
    assert {name for name in texts if name.endswith(("dir", "folder", "weights", "ledger", "backup"))} <= {*PATH_FIELDS}


def test_the_script_names_itself_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["my pipelines/local_run.py"])
    python, script = shlex.split(called_as())
    assert shutil.which(python) == sys.executable
    assert script == "my pipelines/local_run.py"


@pytest.mark.parametrize(
    "name", ["public/synthetic/a", "report.html", "summary.json", "public/serving_model/1/a", "internal/a"]
)
def test_what_is_the_user_s_is_refused_before_anything_runs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit) as end:
        run(SynthesisConfig(output_dir=str(tmp_path)))
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert "give another --output_dir" in line
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_dir": "file"}, "file is a file. Give another --output_dir"),
        ({"output_dir": "file/deeper"}, "file is a file. Give another --output_dir"),
        ({"inception_weights": "none.h5"}, "`inception_weights` should be a file, or keras; there is none at none.h5"),
        ({"start_at": "attack"}, "`start_at` attack needs what ingest made, and expected a folder with a PrivateEx"),
    ],
)
def test_what_is_in_the_way_is_one_line_and_exit_code_2(
    settings: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    with pytest.raises(SystemExit) as end:
        run(SynthesisConfig(**settings), command="tfdpgen run")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tfdpgen run: ")
    assert end.value.code == 2
    assert message in line


@pytest.mark.parametrize("has_progress", [True, False])
def test_a_training_that_is_interrupted_says_how_to_go_on(
    has_progress: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import beam_runner

    backup = tmp_path / "output" / "internal" / "backup"

    def interrupted(*_: Any, **__: Any) -> None:
        (backup / "step-0000000002" if has_progress else backup).mkdir(parents=True)
        raise beam_runner.ComponentFailedError("train was interrupted.", tmp_path / "train.log", "train")

    monkeypatch.setattr(beam_runner, "run", interrupted)
    with pytest.raises(SystemExit) as end:
        run(SynthesisConfig(output_dir=str(tmp_path / "output")), command="tfdpgen run")
    first, _, *rest = str(end.value.code).splitlines()
    assert first == "train was interrupted."
    command = f"    tfdpgen run --output_dir={tmp_path / 'output'}"
    said = (
        f"What was reserved stays reserved, and {backup} keeps the progress. To go on from there, without paying again:"
    )
    assert rest == ([said, command] if has_progress else [])


def test_an_attack_that_is_not_about_membership_is_said_to_be_none(tmp_path: Path) -> None:
    metrics = {"accuracy": 1.0, "privacy_loss": 1.0, "auc": 1.0}
    summary: dict[str, Any] = {
        "privacy": {"epsilon": 3.0, "delta": 1e-5, "unit": "one image with its label"},
        "num_examples": 60,
        "utility": {"p1": 1.0, "p2": 1.0, "balanced": {"p1": 1.0, "p2": 1.0}, "classifiers": {}, "cautions": []},
        "attacks": {"noise": metrics | {"is_membership": False}, "holdout": metrics | {"is_membership": True}},
        "release": True,
    }
    noise, holdout = (line for line in describe(summary, tmp_path).splitlines() if line.startswith("Attack "))
    assert noise.endswith("AUC 1.000 (not about membership: tells private examples from noise)")
    assert holdout.endswith("AUC 1.000")
    assert "for each of 60 training examples\n" in describe(summary, tmp_path)
    summary["privacy"] |= {"unit": "one user with all of that user's images, however many"}
    assert "for each of 60 training users\n" in describe(summary, tmp_path)


def test_ctrl_c_before_the_first_step_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.local_run.app.run", interrupted)
    with pytest.raises(SystemExit) as end:
        entry_point([], "tfdpgen run")
    assert (end.value.code, capsys.readouterr().err) == (130, "tfdpgen run: interrupted.\n")


def test_a_failing_component_ends_the_script(tmp_path: Path) -> None:
    done = _local_run("--dataset=no_such.npz", f"--output_dir={tmp_path}")
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert "no_such.npz" in lines[0]
    assert lines[0].startswith("ingest failed: ")
    assert len(lines) == 1
    assert not (tmp_path / "internal" / "train").exists()
    assert not (tmp_path / "summary.json").exists()


def test_a_dry_run_says_what_a_run_would_take_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "output" / "internal" / "train" / "release.txt"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("bought")
    (earlier.parents[1] / "README").write_text(README)
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    config = SynthesisConfig(dry_run=True, epsilon=1.5, seed=4, output_dir=str(tmp_path / "output"))
    run(config, command="tfdpgen run")
    printed = capsys.readouterr().out
    assert "1,077 private training examples" in printed
    assert "Signal to noise" in printed
    assert "[3/" not in printed
    command = f"tfdpgen run --epsilon=1.5 --output_dir={tmp_path / 'output'} --seed=4"
    assert printed.splitlines()[-1].endswith(f"go on: {command}")
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before
    assert earlier.read_text() == "bought"


def test_a_dry_run_of_image_files_leaves_no_decoded_image_and_nothing_in_the_way(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(50):
            PIL.Image.new("L", (8, 8), i).save(tmp_path / "photos" / name / f"{i}.png")
    config = SynthesisConfig(
        dry_run=True,
        dataset=str(tmp_path / "photos"),
        image_shape="8,8,1",
        method="gaussian_mixture",
        output_dir=str(tmp_path / "output"),
    )
    for _ in range(2):
        run(config)
        assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert absolute(config).cache == str(tmp_path / "output" / "internal" / "cache")


@pytest.mark.parametrize("whose", ["user", "run"])
def test_a_dry_run_removes_no_folder_of_others(tmp_path: Path, whose: str) -> None:
    folder = tmp_path / ".output.dry_run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with contextlib.ExitStack() as stack:
        if whose == "run":
            (folder / "README").write_text(README)
            stack.enter_context(folder_lock(folder))
        with pytest.raises(SystemExit):
            run(SynthesisConfig(dry_run=True, method="gaussian_mixture", output_dir=str(tmp_path / "output")))
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_dry_run_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"ingest failed: .*no_such.npz"):
        run(SynthesisConfig(dry_run=True, dataset="no_such.npz", output_dir=str(tmp_path / "output")))
    assert not list(tmp_path.iterdir())


def test_a_command_line_gives_the_same_settings_again() -> None:
    config = SynthesisConfig(
        dataset="my scans.npz", delta=1e-7, on_disk=True, classifiers="", beam_args="--job_name='b c'"
    )
    program, *flags = shlex.split(command_line(config, "tfdpgen-run"))
    assert program == "tfdpgen-run"
    assert flags_parser(SynthesisConfig, "")([program, *flags]) == config
