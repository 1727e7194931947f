"""Exporters, against an MLflow server and a collector of OpenLineage's events on this machine.

Their clients are in no lock: pip install mlflow openlineage-python, and pytest tests/pipelines/test_export.py.
"""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import PrivateExamples, Publication, TrainedRelease
from pipelines.export_command import _Run, _short, main


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What a run leaves that an exporter reads."""
    folder = tmp_path / "output"
    publication = folder / "internal" / "publish" / "publication"
    release = folder / "internal" / "train" / "release"
    examples = folder / "internal" / "ingest" / "examples"
    for path in (publication, release, examples, folder / "public"):
        path.mkdir(parents=True)
        (path / "content").write_text(path.name)
    private = PrivateExamples(examples, "ingest", 0.5, run="run-1")
    private.seal()
    made = TrainedRelease(release, "train", 2.5, run="run-1", parameters={"epsilon": 3.0, "ledger": "/secret/place"})
    made.inputs = {"examples": private.header}
    made.seal()
    Publication(publication, "publish", 1.5, run="run-1", inputs={"release": made.header}).seal()
    summary = {
        "dataset": "/home/me/diagnoses",
        "method": "c_vae",
        "privacy": {"epsilon": 2.9, "delta": 1e-5},
        "utility": {"p2": 0.875, "classifiers": {"mlp": {"p2": 0.5}}, "cautions": ["x"]},
        "seconds": {"train": 2.5},
        "release": True,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "report.html").write_text("<p>internal</p>")
    (folder / "public" / "report_public.html").write_text("<p>public</p>")
    (folder / "public" / "privacy.json").write_text("{}")
    return folder


def test_what_is_sent_to_everybody_holds_no_digest_of_anything_internal(output: Path) -> None:
    """Whoever guesses the private examples could tell by their digest that the guess is right."""
    headers = {header["type"]: header for header in _Run(output, False).steps()}
    public = _Run(output, True)
    sent = json.dumps([_short(header, True) for header in public.steps()])
    assert headers["TrainedRelease"]["digest"] in sent
    for kind in ("PrivateExamples", "Publication"):
        assert headers[kind]["digest"] not in sent
        assert headers[kind]["id"] not in sent
    assert [header["type"] for header in public.steps()] == ["TrainedRelease"]
    assert "place" not in json.dumps(public.params())


def test_bad_requests_are_said_in_a_line(tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(output)]) == 2
    assert "give --mlflow or --openlineage" in capsys.readouterr().err
    assert main([str(tmp_path), "--mlflow=http://127.0.0.1:9"]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    if importlib.util.find_spec("mlflow") is None:
        assert main([str(output), "--mlflow=http://127.0.0.1:9"]) == 2
        assert "pip install 'tfdpgen[mlflow]'" in capsys.readouterr().err
    if importlib.util.find_spec("openlineage") is None:
        assert main([str(output), "--openlineage=http://127.0.0.1:9"]) == 2
        assert "pip install 'tfdpgen[openlineage]'" in capsys.readouterr().err


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("mlflow.server", reason="MLflow is not installed: pip install mlflow")
    address = f"http://127.0.0.1:{(port := _free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    places = [f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db", f"--artifacts-destination={tmp_path}/artifacts"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    process = subprocess.Popen(
        [*command, *places], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).read()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(30)


def test_mlflow_gives_back_what_was_sent(
    mlflow_server: str, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

    assert main([str(output), f"--mlflow={mlflow_server}"]) == 0
    client = MlflowClient(tracking_uri=mlflow_server)
    (run,) = client.search_runs([client.get_experiment_by_name("tfdpgen").experiment_id])
    assert run.data.params == {"dataset": "/home/me/diagnoses", "method": "c_vae", "train.epsilon": "3.0"}
    assert run.data.metrics["utility.p2"] == 0.875
    assert run.data.metrics["utility.classifiers.mlp.p2"] == 0.5
    assert run.data.metrics["privacy.epsilon"] == 2.9
    assert run.data.tags["tfdpgen.internal"] == "true"
    assert run.info.status == "FINISHED"
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert files == {"report.html", "summary.json", "public", "lineage.json"}
    content = Path(client.download_artifacts(run.info.run_id, "report.html", str(output))).read_text()
    assert content == "<p>internal</p>"
    lineage = json.loads(Path(client.download_artifacts(run.info.run_id, "lineage.json", str(output))).read_text())
    assert [each["type"] for each in lineage["artifacts"]] == [
        "PrivateExamples",
        "TrainedRelease",
        "Publication",
    ]

    capsys.readouterr()
    assert main([str(output), f"--mlflow={mlflow_server}"]) == 0
    assert "has this run already" in capsys.readouterr().out
    assert main([str(output), f"--mlflow={mlflow_server}", "--public_only", "--experiment=public"]) == 0
    (public,) = client.search_runs([client.get_experiment_by_name("public").experiment_id])
    assert public.data.params == {"method": "c_vae", "train.epsilon": "3.0"}
    assert set(public.data.metrics) == {"privacy.epsilon", "privacy.delta"}
    assert {each.path for each in client.list_artifacts(public.info.run_id)} == {"public", "lineage.json"}


def test_a_server_that_is_not_there_is_said_in_a_line(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main([str(output), "--mlflow=http://127.0.0.1:9"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_collector_gets_events_of_openlineage(output: Path) -> None:
    pytest.importorskip("openlineage.client", reason="OpenLineage is not installed: pip install openlineage-python")
    events: list[dict[str, Any]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert main([str(output), f"--openlineage=http://127.0.0.1:{server.server_port}"]) == 0
    server.shutdown()
    _check_events(events)
    path = output.parent / "events.jsonl"
    assert main([str(output), f"--openlineage={path}"]) == 0
    _check_events([json.loads(line) for line in path.read_text().splitlines()])


def _check_events(events: list[dict[str, Any]]) -> None:
    assert [(each["job"]["name"], each["eventType"]) for each in events] == [
        (name, state) for name in ("ingest", "train", "publish") for state in ("START", "COMPLETE")
    ]
    train, publish = events[3], events[5]
    assert train["outputs"][0]["name"] == publish["inputs"][0]["name"]
    assert publish["inputs"][0]["name"].startswith("TrainedRelease/")
    assert len(train["outputs"][0]["facets"]["version"]["datasetVersion"]) == 64
    assert len({each["run"]["facets"]["parent"]["run"]["runId"] for each in events}) == 1
    assert "secret" not in json.dumps(events)
