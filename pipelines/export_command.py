"""A run's facts for other tools: `tfdpgen export`.

    tfdpgen export output --mlflow=http://127.0.0.1:5000            # a run of MLflow: params, metrics, the report
    tfdpgen export output --openlineage=http://127.0.0.1:5000       # events of OpenLineage, one job for each step
    tfdpgen export output --openlineage=events.jsonl

It reads what a run has left (headers, summary.json) and changes nothing. **Metrics of private examples go with it**, so
that the server has to be inside the trust boundary; `--public_only` sends nothing but what may be published. A run that
is there already is not sent again. MLflow needs pip install 'tfdpgen[mlflow]', OpenLineage 'tfdpgen[openlineage]'.
"""

from __future__ import annotations

import argparse
import json
import numbers
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_NAMESPACE = "tfdpgen"
_PRODUCER = "tfdpgen"
_LONGEST = 500  # characters of a param that every MLflow server takes
_RUN_TAG, _INTERNAL_TAG = "tfdpgen.publication", "tfdpgen.internal"


def main(arguments: Sequence[str], program: str = "python -m pipelines.export_command") -> int:
    """Sends one run; returns the exit status: 1 where a server refuses, 2 where there is nothing to send."""
    parser = argparse.ArgumentParser(
        prog=program, description="Sends a run's facts to MLflow or OpenLineage.", allow_abbrev=False
    )
    parser.add_argument("output_dir", help="of the run")
    parser.add_argument("--mlflow", default="", help="tracking URI, as in http://127.0.0.1:5000")
    parser.add_argument("--experiment", default="tfdpgen", help="of MLflow (default: %(default)s)")
    parser.add_argument("--openlineage", default="", help="address of a collector, or a file that gets a line an event")
    parser.add_argument("--public_only", action="store_true", help="leave out all that is internal")
    flags = parser.parse_args(arguments)
    if not (flags.mlflow or flags.openlineage):
        print(f"{program}: give --mlflow or --openlineage, which say where to.", file=sys.stderr)
        return 2
    from components.component import one_line

    try:
        run = _Run(Path(flags.output_dir).expanduser(), flags.public_only)
    except (OSError, ValueError, KeyError) as error:
        print(f"{program}: {flags.output_dir} holds no finished run: {one_line(error)}", file=sys.stderr)
        return 2
    try:
        if flags.mlflow:
            print(to_mlflow(run, flags.mlflow, flags.experiment))
        if flags.openlineage:
            print(to_openlineage(run, flags.openlineage))
    except ImportError as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:  # of a client, each with a kind of its own
        print(f"{program}: not sent ({type(error).__name__}): {one_line(error)}", file=sys.stderr)
        return 1
    return 0


class _Run:
    """What a finished run has left.

    Attributes:
      folder: its output_dir.
      header: of the publication, with the headers of all that it was made of.
      summary: summary.json, or what of it may be published.
      is_public_only: whether internal facts are left out.
    """

    def __init__(self, folder: Path, is_public_only: bool) -> None:
        from components.artifacts import Publication
        from tfdpgen.report import public_part

        self.folder, self.is_public_only = folder, is_public_only
        self.header = Publication.open(folder / "internal" / "publish" / "publication").header
        summary = json.loads((folder / "summary.json").read_text())
        self.summary = public_part(summary) if is_public_only else summary

    def steps(self) -> list[dict[str, Any]]:
        """The headers of all artifacts, what others were made of first, each once.

        Of a public run, those that were computed with noise alone: an artifact's digest tells whoever guesses its
        content that the guess is right.
        """
        found: dict[str, dict[str, Any]] = {}

        def visit(header: dict[str, Any]) -> None:
            for source in header["inputs"].values():
                visit(source)
            found.setdefault(header["id"], header)

        visit(self.header)
        return [header for header in found.values() if not (self.is_public_only and header["internal"])]

    def params(self) -> dict[str, str]:
        """Settings of each component; of a public run those of the training alone, without paths."""
        from components.component import WHERE

        params = {"dataset": str(self.summary.get("dataset", "")), "method": str(self.summary["method"])}
        for header in self.steps():
            if self.is_public_only and header["component"] not in ("train", "generate"):
                continue
            for name, value in header["parameters"].items():
                if name not in WHERE and not (self.is_public_only and name in ("public_dataset", "data_dir")):
                    params[f"{header['component']}.{name}"] = str(value)[:_LONGEST]
        return {name: value for name, value in params.items() if value}

    def metrics(self) -> dict[str, float]:
        """All numbers of the summary, by their paths in it."""
        return dict(_numbers(self.summary))

    def files(self) -> list[Path]:
        """What is sent along."""
        public = sorted(path for path in self.folder.glob("public/*") if path.is_file())
        return public if self.is_public_only else [self.folder / "report.html", self.folder / "summary.json", *public]


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers in nested mappings, named by their keys; lists are left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        yield path, float(value)


def to_mlflow(run: _Run, address: str, experiment: str) -> str:
    """Writes one run of MLflow; returns what was done.

    Raises:
      ImportError: if MLflow's client is not installed.
    """
    try:
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("MLflow's client is not installed: pip install 'tfdpgen[mlflow]'") from None
    client = MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    kind = "public" if run.is_public_only else "all"
    name = f"{run.header['id']}:{kind}"
    earlier = client.search_runs([number], f"tags.`{_RUN_TAG}` = '{name}' and attributes.status = 'FINISHED'")
    if earlier:
        return f"MLflow has this run already: {earlier[0].info.run_id}"
    tags = {
        _RUN_TAG: name,
        _INTERNAL_TAG: str(not run.is_public_only).lower(),
        "tfdpgen.version": run.header["version"],
    }
    made = client.create_run(number, tags=tags, run_name=run.header["run"] or None).info.run_id
    for key, value in run.params().items():
        client.log_param(made, key, value)
    for key, value in run.metrics().items():
        client.log_metric(made, key.replace("@", "_"), value)
    for path in run.files():
        client.log_artifact(made, str(path), "public" if path.parent.name == "public" else None)
    client.log_dict(made, {"artifacts": [_short(header, run.is_public_only) for header in run.steps()]}, "lineage.json")
    client.set_terminated(made)
    return f"MLflow run {made} in experiment {experiment!r} at {address}"


def to_openlineage(run: _Run, address: str) -> str:
    """Emits an event for each step; returns what was done.

    Raises:
      ImportError: if OpenLineage's client is not installed.
    """
    try:
        from openlineage.client import OpenLineageClient  # pyright: ignore[reportMissingImports]
        from openlineage.client.event_v2 import (  # pyright: ignore[reportMissingImports]
            InputDataset,
            Job,
            OutputDataset,
            RunEvent,
            RunState,
        )
        from openlineage.client.event_v2 import Run as LineageRun  # pyright: ignore[reportMissingImports]
        from openlineage.client.facet_v2 import (  # pyright: ignore[reportMissingImports]
            dataset_version_dataset,
            parent_run,
        )
        from openlineage.client.transport.file import (  # pyright: ignore[reportMissingImports]
            FileConfig,
            FileTransport,
        )
        from openlineage.client.transport.http import (  # pyright: ignore[reportMissingImports]
            HttpConfig,
            HttpTransport,
        )
    except ImportError:
        raise ImportError("OpenLineage's client is not installed: pip install 'tfdpgen[openlineage]'") from None
    import datetime

    if "://" in address:
        transport: Any = HttpTransport(HttpConfig(url=address))
    else:
        transport = FileTransport(FileConfig(log_file_path=address, append=True))
    client = OpenLineageClient(transport=transport)
    parent = str(uuid.uuid5(uuid.NAMESPACE_OID, run.header["run"] or run.header["id"]))

    def version(header: Mapping[str, Any]) -> dict[str, Any]:
        return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=header["digest"])}

    by_step: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for header in run.steps():
        by_step.setdefault((header["component"], header["run"] or header["id"]), []).append(header)
    for (component, name), made in by_step.items():
        known = {header["id"]: header for header in run.steps()}
        asked = {source["id"] for header in made for source in header["inputs"].values()}
        sources = {name: header for name, header in known.items() if name in asked}
        facets = {
            "parent": parent_run.ParentRunFacet(
                run=parent_run.Run(runId=parent), job=parent_run.Job(namespace=_NAMESPACE, name="tfdpgen-synthesis")
            )
        }
        for state in (RunState.START, RunState.COMPLETE):
            client.emit(
                RunEvent(
                    eventType=state,
                    eventTime=datetime.datetime.now(datetime.UTC).isoformat(),
                    producer=_PRODUCER,
                    run=LineageRun(runId=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}/{component}")), facets=facets),
                    job=Job(namespace=_NAMESPACE, name=component),
                    inputs=[
                        InputDataset(namespace=_NAMESPACE, name=f"{each['type']}/{each['id']}", facets=version(each))
                        for each in sources.values()
                    ],
                    outputs=[
                        OutputDataset(namespace=_NAMESPACE, name=f"{each['type']}/{each['id']}", facets=version(each))
                        for each in made
                    ],
                )
            )
    client.close()
    return f"{2 * len(by_step)} events of OpenLineage to {address}"


def _short(header: Mapping[str, Any], is_public_only: bool) -> dict[str, Any]:
    """A header, and of what it was made of the ids alone."""
    kept = ("id", "type", "component", "run", "version", "digest")
    short = {name: header[name] for name in kept}
    if not is_public_only:
        short |= {name: header[name] for name in ("facts", "parameters", "seconds")}
    sources = {name: source for name, source in header["inputs"].items() if not (is_public_only and source["internal"])}
    return short | {"inputs": {name: source["id"] for name, source in sources.items()}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
