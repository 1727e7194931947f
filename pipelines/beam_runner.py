"""Runs a pipeline on Apache Beam, the way TFX's BeamDagRunner does.

Every node is a ParDo on one element; the outputs of its upstream nodes are side inputs that carry no data and make it
wait. Beam's FnApiRunner runs it in this process; other runners and their options come as Beam's own flags:

    run(SYNTHESIS, config, "output/internal", beam_args=["--runner=FlinkRunner", "--flink_master=host:8081"])

Artifacts lie in <root>/<component>/<output>. A node starts at most once in a run, whatever the Beam runner does about
retries, since training twice would spend twice. A failing node names itself and its cause, and nothing downstream of it
runs. Runners elsewhere have to see <root> on a shared file system.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsIter, PCollection
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineState
from apache_beam.typehints.decorators import no_annotations

from components import Component
from components.component import is_refusal, message_of, one_line
from pipelines.dag import Pipeline
from pipelines.lineage import Lineage
from pipelines.resuming import (
    README,
    check_reusable,
    check_root,
    differences,
    is_finished,
    keeping,
    paths_of,
    recover,
    reused,
)
from tfdpgen.files import folder_lock


class ComponentFailedError(RuntimeError):
    """A component failed; the message names it and the cause on one line.

    Attributes:
      details: the file with the traceback.
      step: the name of the component; empty where it was the Beam runner that failed.
      is_refusal: whether it said no, to input or for want of budget, so that nobody has to look at the traceback.
    """

    def __init__(self, message: str, details: Path, step: str = "", is_refusal: bool = False) -> None:
        super().__init__(message)
        self.details, self.step, self.is_refusal = details, step, is_refusal


def run(
    pipeline: Pipeline,
    config: Any,
    root: str | Path,
    *,
    beam_args: Sequence[str] = (),
    start_at: str = "",
    paid: str = "",
    anew: bool = False,
    warning: Callable[[list[str]], str] | None = None,
    index: str = "",
) -> None:
    """Runs every node once, each after its upstream nodes, and prints a line as each starts and ends.

    A node whose outputs are there as they would come out now is not run again.

    Args:
      pipeline: what to run.
      config: an instance of `pipeline.config`.
      root: folder for the artifacts; only its owner may look into it. Finished artifacts there are replaced.
      beam_args: flags of Beam; without `--runner` it is FnApiRunner.
      start_at: the first node to run; what earlier ones have made in an earlier run is used again. Empty: all run.
      paid: the node whose artifacts cost privacy budget: those of an earlier run are only replaced once they are
        finished anew. Empty: there is none.
      anew: whether to run all nodes, whatever is there.
      warning: gives what is printed where artifacts of `paid` are there, finished, and will be made anew, from the
        settings that have changed.
      index: file of the index that artifacts are recorded in. Empty: they are not.

    Raises:
      ComponentFailedError: if a component failed.
      FolderInUseError: if another run is using `root`.
      ResumeError: if the run cannot start at `start_at`; nothing has run then.
      RootError: if `root` holds something that no earlier run has put there; nothing has run then.
    """
    root = Path(root).absolute()
    check_root(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(root):
        root.chmod(0o700)
        (root / "README").write_text(README)
        if paid:
            recover(pipeline, root, paid)
        if start_at:
            check_reusable(pipeline, config, root, start_at)
        is_paid_anew = bool(paid) and not start_at and (anew or paid not in reused(pipeline, config, root))
        if is_paid_anew and warning is not None and is_finished(pipeline, root, paid):
            print(warning(differences(pipeline, config, root, paid)), flush=True)
        with keeping(pipeline, root, paid) if is_paid_anew else contextlib.nullcontext():
            _run(pipeline, config, root, beam_args, start_at, not (anew or start_at), index)


def _run(
    pipeline: Pipeline,
    config: Any,
    root: Path,
    beam_args: Sequence[str],
    start_at: str,
    is_reusing: bool,
    index: str,
) -> None:
    """`run` in a folder that no other run is using."""
    names = list(pipeline.nodes)
    nodes = [pipeline.nodes[name] for name in names[names.index(start_at) if start_at else 0 :]]
    state = root / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    state.mkdir(parents=True)

    named = any(argument.split("=")[0] == "--runner" for argument in beam_args)
    graph = beam.Pipeline(runner=None if named else FnApiRunner(), options=PipelineOptions(list(beam_args)))
    signals: dict[str, PCollection] = {}
    for node in nodes:
        inputs, outputs = paths_of(node, root)
        step = _Node(
            node.component,
            inputs=inputs,
            outputs=outputs,
            is_reusing=is_reusing,
            index=index,
            parameters={name: getattr(config, field) for name, field in node.fields.items()},
            state=state,
            total=len(nodes),
        )
        waits = [AsIter(signals[name]) for name in node.upstream if name in signals]
        signals[node.name] = graph | f"{node.name} once" >> beam.Create([None]) | node.name >> beam.ParDo(step, *waits)
    try:
        finished = graph.run().wait_until_finish() in (PipelineState.DONE, None)
        cause = "the Beam runner did not finish the pipeline."
    except Exception as error:  # Beam wraps what a node raised, each runner in its own way
        finished, cause = False, one_line(error)
        (state / "beam.log").write_text(traceback.format_exc())
    if failures := sorted(state.glob("*.failed"), key=lambda path: path.stat().st_mtime):
        first = failures[0]
        is_refusal = first.with_suffix(".refused").exists()
        raise ComponentFailedError(first.read_text(), first.with_suffix(".log"), first.stem, is_refusal)
    if not finished or any(not (state / f"{node.name}.finished").exists() for node in nodes):
        raise ComponentFailedError(
            cause if not finished else "the Beam runner left components out.", state / "beam.log"
        )
    shutil.rmtree(state)


class _Node(beam.DoFn):
    """Executes a component, once."""

    def __init__(
        self,
        component: Component,
        inputs: dict[str, str],
        outputs: dict[str, str],
        parameters: dict[str, Any],
        state: Path,
        total: int,
        is_reusing: bool,
        index: str,
    ) -> None:
        self._component, self._arguments = component, (inputs, outputs, parameters)
        self._state, self._total, self._is_reusing, self._index = state, total, is_reusing, index

    @no_annotations  # Beam reads the type of `*signals` as that of one side input
    def process(self, element: None, *signals: Any) -> Iterator[None]:
        name = self._component.name
        for signal in signals:
            list(signal)
        try:
            (self._state / f"{name}.started").touch(exist_ok=False)
        except FileExistsError:
            raise RuntimeError(f"the Beam runner tried to run {name} a second time, which is refused.") from None
        label = f"[{len(list(self._state.glob('*.started')))}/{self._total}] {name}"
        started = time.monotonic()
        try:
            if self._is_reusing and self._component.finished(*self._arguments):
                (self._state / f"{name}.finished").touch()
                print(f"{label}: nothing has changed, and what it made is kept", flush=True)
                yield None
                return
            print(f"{label} ...", flush=True)
            self._component.execute(*self._arguments, run=self._state.name)
            self._record()
        except BaseException as error:
            (self._state / f"{name}.log").write_text(traceback.format_exc())
            said = f"{name} failed ({type(error).__name__}): {message_of(error)}"
            if is_refusal(error):
                said = f"{name} failed: {message_of(error)}"
                (self._state / f"{name}.refused").touch()
            if isinstance(error, KeyboardInterrupt):
                said = f"{name} was interrupted."
            (self._state / f"{name}.failed").write_text(said)
            raise
        (self._state / f"{name}.finished").touch()
        print(f"{label} done in {time.monotonic() - started:.1f} s", flush=True)
        yield None

    def _record(self) -> None:
        """Puts what was made into the index. A run does not fail for that: headers tell the same."""
        if not self._index:
            return
        try:
            index = Lineage(self._index)
            for name, kind in self._component.outputs.items():
                made = kind.open(self._arguments[1][name])
                index.record(made, made.parts())
        except Exception as error:
            print(f"{self._component.name}: not recorded in {self._index}: {one_line(error)}", flush=True)


def quiet_beam() -> None:
    """Leaves it to `ComponentFailedError` to say what failed: Beam would print tracebacks of its own workers."""
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)
