"""What a training has cost is paid once: its artifacts are kept, and later steps can be run again from them.

    check_reusable(SYNTHESIS, config, "output/internal", start_at="generate")    # or why not, as ResumeError
    with keeping(SYNTHESIS, "output/internal", paid="train"):
        ...                                             # run from the start: a finished training is set aside meanwhile

A run that starts at a later step reads the artifacts of earlier ones. That is refused unless they are finished, belong
together (each was made of the others that lie there) and were made with the parameters that are asked for now, so that
nobody gets a release under another claim than it was made with.

A run from the start uses again whatever would come out the same (`Component.fingerprint`), so that the same command
twice trains once; `reused` says what that is. Where it trains anew, an earlier, finished training is set aside until
the new one is finished, and put back with all that it was made of if the new one fails before, also after a SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components import Artifact, ArtifactError
from components.component import WHERE
from pipelines.config import PAID
from pipelines.dag import Node, Pipeline
from tfdpgen.files import fsync, remove

README = """\
This folder is internal. It holds private examples, metrics computed on them without noise, and the progress of a
training that was stopped. Do not publish it. What may leave is in ../public.
"""

_ASIDE, _OLD = "earlier", ".earlier.old"


class RootError(ValueError):
    """The folder for artifacts is somebody else's."""


class ResumeError(ValueError):
    """A run cannot start at that step; the message says what differs and what to do."""


def check_root(root: Path) -> None:
    """Refuses a folder that holds something and that no earlier run has made.

    Raises:
      RootError: with what to do.
    """
    if not (root.exists() or root.is_symlink()):
        return
    if not root.is_dir():
        raise RootError(f"{root} should be a folder of internal artifacts; it is a file. Give another --output_dir.")
    readme = root / "README"
    is_ours = readme.is_file() and readme.read_bytes().startswith(README.encode()[:24])
    if any(root.iterdir()) and not is_ours:
        raise RootError(
            f"{root} holds something that no earlier run has put there, and is left alone; move it away, or give "
            "another --output_dir."
        )


def check_reusable(pipeline: Pipeline, config: Any, root: Path, start_at: str) -> None:
    """Holds that a run can start at a step: that all which it and later steps are made of is there and fits.

    Args:
      pipeline: what is to run.
      config: an instance of `pipeline.config`.
      root: folder with the artifacts of an earlier run.
      start_at: name of the first step to run.

    Raises:
      ResumeError: if an artifact is missing or unfinished, was made of others than lie there, or with other parameters.
    """
    if start_at not in pipeline.nodes:
        raise ResumeError(f"`start_at` should be one of {', '.join(pipeline.nodes)}; got {start_at!r}.")
    opened: dict[tuple[str, str], Artifact] = {}
    for node in _needed(pipeline, start_at):
        for output, kind in node.component.outputs.items():
            try:
                opened[node.name, output] = kind.open(root / node.name / output)
            except ArtifactError as error:
                raise ResumeError(
                    f"`start_at` {start_at} needs what {node.name} made, and {error} {_instead(node, pipeline)}"
                ) from None
        _check_parameters(node, pipeline, config, opened[node.name, next(iter(node.component.outputs))], start_at)
        for output in node.component.outputs:
            _check_origin(node, pipeline, opened[node.name, output], opened, start_at)


def _needed(pipeline: Pipeline, start_at: str) -> list[Node]:
    """The earlier nodes whose artifacts are read from that step on, or that these were made of, in their order."""
    names = list(pipeline.nodes)
    earlier, rest = names[: names.index(start_at)], names[names.index(start_at) :]
    wanted = {source.node for name in rest for source in pipeline.nodes[name].inputs.values()}
    for name in reversed(earlier):
        if name in wanted:
            wanted |= {source.node for source in pipeline.nodes[name].inputs.values()}
    return [pipeline.nodes[name] for name in earlier if name in wanted]


def _check_parameters(node: Node, pipeline: Pipeline, config: Any, artifact: Artifact, start_at: str) -> None:
    """Refuses an artifact that was made with other parameters than the configuration has now."""
    for name, field in node.fields.items():
        made, asked = artifact.parameters.get(name), getattr(config, field)
        if name not in WHERE and made != asked:
            raise ResumeError(
                f"`start_at` {start_at} cannot go on with what {node.name} made: it was made with {field}={made!r}, "
                f"and {asked!r} is asked for. Give --{field}={made}. {_instead(node, pipeline)}"
            )


def _check_origin(
    node: Node, pipeline: Pipeline, artifact: Artifact, opened: dict[tuple[str, str], Artifact], start_at: str
) -> None:
    """Refuses an artifact that was made of others than lie there, or beside another output in another training."""
    for name, source in node.inputs.items():
        if artifact.made_of(name)["id"] != opened[source.node, source.output].id:
            raise ResumeError(
                f"`start_at` {start_at} cannot go on: {artifact.path} was made of another `{name}` than lies in "
                f"{opened[source.node, source.output].path}. Start at an earlier step."
            )
    trainings = {opened[node.name, output].facts.get("training") for output in node.component.outputs}
    if len(trainings) > 1:
        raise ResumeError(
            f"`start_at` {start_at} cannot go on: what lies in {artifact.path.parent} comes from different executions "
            f"of {node.name}. {_instead(node, pipeline)}"
        )


def _instead(node: Node, pipeline: Pipeline) -> str:
    """How to have a step's work done again: without another training where that is possible."""
    names = list(pipeline.nodes)
    if PAID in names and names.index(node.name) > names.index(PAID):
        return f"Or start at that step, with --start_at={node.name}: the training is kept, and paid for."
    return "Or run without --start_at: whatever would come out otherwise is made anew, and a training pays anew."


def is_finished(pipeline: Pipeline, root: Path, name: str) -> bool:
    """Whether all outputs of a step lie in `root`, finished."""
    try:
        for output, kind in pipeline.nodes[name].component.outputs.items():
            kind.open(root / name / output)
    except ArtifactError:
        return False
    return True


def reused(pipeline: Pipeline, config: Any, root: Path) -> set[str]:
    """The steps whose outputs lie in `root` as they would come out now, and so would those that they read.

    Raises:
      ArtifactError: if one of these was changed since it was made.
    """
    names: set[str] = set()
    for node in pipeline.nodes.values():
        if {source.node for source in node.inputs.values()} <= names and node.component.finished(
            *paths_of(node, root), {name: getattr(config, field) for name, field in node.fields.items()}
        ):
            names.add(node.name)
    return names


def paths_of(node: Node, root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Where a step's inputs and outputs lie."""
    inputs = {name: str(root / source.node / source.output) for name, source in node.inputs.items()}
    return inputs, {name: str(root / node.name / name) for name in node.component.outputs}


def differences(pipeline: Pipeline, config: Any, root: Path, name: str) -> list[str]:
    """Which settings of a step, or of those before it, are others than its outputs in `root` were made with."""
    found: dict[str, str] = {}
    for node in pipeline.until(name).nodes.values():
        try:
            outputs = [kind.open(root / node.name / output) for output, kind in node.component.outputs.items()]
        except ArtifactError:
            continue
        for parameter, field in node.fields.items():
            was, now = outputs[0].parameters.get(parameter), getattr(config, field)
            if parameter not in WHERE and was != now and parameter in outputs[0].parameters:
                found[field] = f"{field} was {was!r} and is {now!r}"
    return list(found.values())


@contextlib.contextmanager
def keeping(pipeline: Pipeline, root: Path, paid: str) -> Iterator[None]:
    """Sets what an earlier run has made aside, and puts it back unless step `paid` is finished anew in the block.

    What is set aside stays in its place, too: the files there are the same ones, by hard links, and steps replace
    folders and change none of their files. What a killed run left aside is put back first.

    Args:
      pipeline: whose steps' folders lie in `root`.
      root: folder that no other run is using.
      paid: name of the step whose artifacts cost privacy budget.
    """
    recover(pipeline, root, paid)
    if is_finished(pipeline, root, paid):
        part = root / f".{_ASIDE}.part"
        remove(part)
        part.mkdir()
        for name in pipeline.nodes:
            if (root / name).is_dir():
                shutil.copytree(root / name, part / name, copy_function=_linked)
        part.rename(root / _ASIDE)
        fsync(root)
    try:
        yield
    finally:
        recover(pipeline, root, paid)


def recover(pipeline: Pipeline, root: Path, paid: str) -> None:
    """Puts what was set aside back, or removes it where step `paid` has been finished since."""
    aside, old = root / _ASIDE, root / _OLD
    remove(old)
    remove(root / f".{_ASIDE}.part")
    if not aside.exists():
        return
    if (aside / paid).exists() and _trainings(pipeline, root, paid) - _trainings(pipeline, aside, paid):
        aside.rename(old)
        remove(old)
        return
    for folder in sorted(aside.iterdir(), key=lambda folder: folder.name == paid):  # the paid one last: it tells
        remove(root / folder.name)
        folder.rename(root / folder.name)
    fsync(root)
    aside.rmdir()


def _trainings(pipeline: Pipeline, root: Path, paid: str) -> set[str]:
    """The ids of what step `paid` has made, where all of it is finished."""
    if not is_finished(pipeline, root, paid):
        return set()
    outputs = pipeline.nodes[paid].component.outputs
    return {kind.open(root / paid / output).id for output, kind in outputs.items()}


def _linked(source: str, target: str) -> str:
    """Another name for a file, or a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
