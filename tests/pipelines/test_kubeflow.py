from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components import Publication
from pipelines import SynthesisConfig
from pipelines.config import LOCAL_FIELDS
from pipelines.kubeflow_runner import compile_pipeline, kubeflow_pipeline
from pipelines.synthesis import SYNTHESIS
from tests.pipelines.toy_pipeline import toy

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: Any = pipeline_spec_pb2
GOLDEN = ROOT / "tests" / "golden" / "pipeline.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kubeflow") / "pipeline.yaml"
    compile_pipeline(SYNTHESIS, path, image="tfdpgen:latest")
    return path


def _strictly_parsed(path: Path) -> Any:
    """The pipeline as Kubeflow reads it; a field that it does not know is an error."""
    return json_format.ParseDict(yaml.safe_load(path.read_text()), SCHEMA.PipelineSpec(), ignore_unknown_fields=False)


def test_golden(compiled: Path) -> None:
    assert compiled.read_text() == GOLDEN.read_text(), (
        "the compiled pipeline has changed; if that is meant: "
        "python pipelines/kubeflow_run.py --output=tests/golden/pipeline.yaml"
    )


def test_strict_parsing_finds_the_dag(compiled: Path, tmp_path: Path) -> None:
    spec = _strictly_parsed(compiled)
    tasks = spec.root.dag.tasks
    assert set(tasks) == set(SYNTHESIS.nodes)
    for name, node in SYNTHESIS.nodes.items():
        assert set(tasks[name].dependent_tasks) == set(node.upstream)
        assert set(tasks[name].inputs.artifacts) == set(node.inputs)
        wired = {key: value.component_input_parameter for key, value in tasks[name].inputs.parameters.items()}
        assert wired == dict(node.fields)
        assert not tasks[name].caching_options.enable_cache

    (tmp_path / "wrong.yaml").write_text(
        compiled.read_text().replace("enableCache", "enableCash").replace("cachingOptions", "cashing")
    )
    with pytest.raises(json_format.ParseError):
        _strictly_parsed(tmp_path / "wrong.yaml")


def test_runtime_parameters_are_what_the_local_run_takes(compiled: Path) -> None:
    kinds = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}
    types = get_type_hints(SynthesisConfig)
    parameters = json_format.MessageToDict(_strictly_parsed(compiled).root)["inputDefinitions"]["parameters"]
    assert {name: (facts["parameterType"], facts["defaultValue"]) for name, facts in parameters.items()} == {
        field.name: (kinds[types[field.name]], field.default)
        for field in dataclasses.fields(SynthesisConfig)
        if field.name not in LOCAL_FIELDS
    }


def test_kfp_local_runs_what_was_compiled(tmp_path: Path, kfp_local: None) -> None:
    pipeline: Any = kubeflow_pipeline(toy(), image="python:3.11")
    pipeline(word="ab", times=3, log=str(tmp_path / "log"))
    (path,) = (tmp_path / "root").glob("*/d/publication")
    assert (Publication.open(path).path / "words").read_text() == "ababab"

    with pytest.raises(RuntimeError, match="FAILURE"):
        pipeline(log=str(tmp_path / "second"), fail="c")
    steps = [line.split()[0] for line in (tmp_path / "second").read_text().splitlines()]
    assert steps.count("c") == 1
    assert "d" not in steps


def _step(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.kubeflow_step", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_step_takes_parameters_of_every_type_from_json(tmp_path: Path) -> None:
    values = {"parameterValues": {"word": "a=b --c", "log": str(tmp_path / "log")}}
    place = "tests.pipelines.toy_pipeline:a"
    flags = (f"--component={place}", f"--output=examples={tmp_path / 'x=y'}")
    done = _step(*flags, "--executor_input", json.dumps({"inputs": values}))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "x=y" / "word").read_text() == "a=b --c"

    refused = _step(*flags, "--executor_input", json.dumps({"inputs": {"parameterValues": {"word": True}}}))
    assert (refused.returncode, refused.stderr) == (1, "a failed: `word` should be str; got True.\n")


def test_a_step_refuses_what_is_no_component() -> None:
    done = _step("--component=tests.pipelines.toy_pipeline:toy", "--executor_input", "{}")
    assert done.returncode == 1
    assert "`component` should name a component" in done.stderr
    assert done.stderr.count("\n") == 1


def _kubeflow_run(*flags: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """The script, as a user calls it from somewhere else."""
    command = [sys.executable, str(ROOT / "pipelines" / "kubeflow_run.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")


def test_script(tmp_path: Path) -> None:
    done = _kubeflow_run(f"--output={tmp_path / 'new' / 'p.yaml'}", "--image=registry.example/other:2")
    assert (done.returncode, done.stderr) == (0, "")
    spec = _strictly_parsed(tmp_path / "new" / "p.yaml")
    images = {executor["container"]["image"] for executor in spec.deployment_spec["executors"].values()}
    assert images == {"registry.example/other:2"}


def test_script_says_what_is_wrong(tmp_path: Path) -> None:
    done = _kubeflow_run(f"--output={tmp_path / 'p.json'}")
    assert done.returncode == 1
    assert done.stderr == f"kubeflow_run.py: `output` should end in .yaml; got '{tmp_path}/p.json'.\n"

    (tmp_path / "kfp.py").write_text("raise ModuleNotFoundError(\"No module named 'kfp'\", name='kfp')")
    done = _kubeflow_run(f"--output={tmp_path / 'p.yaml'}", path=str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'tfdpgen[kubeflow]'" in done.stderr
    assert done.stderr.count("\n") == 1
