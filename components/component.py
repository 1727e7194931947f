"""A step of a pipeline: one typed function, and everything that runs it reads its signature.

Artifacts come first, parameters are keyword-only and carry their help:

    @component
    def train(
        examples: Input[PrivateExamples],
        release: Output[TrainedRelease],
        *,
        epsilon: Annotated[float, "privacy budget: epsilon"] = 3.0,
    ) -> None:
        '''Trains a method under differential privacy.'''

    if __name__ == "__main__":
        train.main()                                    # python -m components.train --examples=DIR --release=DIR

    train.execute({"examples": "a"}, {"release": "b"}, {"epsilon": 1.0})

`execute` works in a hidden folder beside each output and renames it when it is complete, so that whatever has the final
name is finished, also after a SIGKILL. What a killed execution left behind is removed by the next one for that output;
a lock that the operating system drops with its owner tells the dead from the living.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import logging
import os
import platform
import sys
import time
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tfdpgen
from components.artifacts import HEADER, READ, WRITTEN, Artifact, ArtifactError
from tfdpgen.data import DataError
from tfdpgen.files import folder_lock, fsync_tree, remove, replace
from tfdpgen.installation import problem_with_environment
from tfdpgen.machine import user_name

PARAMETER_TYPES = (str, int, float, bool)
# Parameters that say where and how a step works, and what a run may cost. What it makes does not depend on them.
WHERE = frozenset(
    {
        "backup",
        "beam_args",
        "cache",
        "destination",
        "dry_run",
        "ledger",
        "shadow_folder",
        "shadow_processes",
        "total_epsilon",
    }
)


class ComponentError(ValueError):
    """A component is defined or used wrongly."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A value that a component takes; `default` is `Parameter.REQUIRED` where it has to be given."""

    REQUIRED: typing.ClassVar[object] = inspect.Parameter.empty

    type: type
    default: Any
    help: str

    def checked(self, name: str, value: Any) -> Any:
        """`value` as this parameter's type; whole floats pass for int, and ints for float, as JSON mixes them.

        Raises:
          ComponentError: if the value is of another type.
        """
        if self.type is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not self.type:
            raise ComponentError(f"`{name}` should be {self.type.__name__}; got {value!r}.")
        return value


@dataclasses.dataclass(frozen=True, eq=False)
class Component:
    """A typed step; made by `@component`.

    Attributes:
      name: of the function.
      fn: the function; it is given opened inputs, outputs whose `path` is a folder to fill, and parameters.
      inputs: artifact types by name.
      outputs: artifact types by name.
      parameters: by name.
      outside: parameters -> JSON-ready facts of what the component reads or writes beside its artifacts, such as the
        files of a data set: where they change, so does the `fingerprint`. None: nothing.
      is_there: outputs and parameters, by name -> whether what the component has written beside its outputs is still
        there. None: it writes nothing there.
    """

    name: str
    fn: Callable[..., None]
    inputs: Mapping[str, type[Artifact]]
    outputs: Mapping[str, type[Artifact]]
    parameters: Mapping[str, Parameter]
    outside: Callable[..., Any] | None = None
    is_there: Callable[..., bool] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a reference, so that a Beam worker imports the component instead of receiving its code."""
        return _import_component, (self.fn.__module__, self.name)

    @property
    def summary(self) -> str:
        """The first paragraph of the function's docstring."""
        return " ".join(inspect.cleandoc(self.fn.__doc__ or "").split("\n\n")[0].split())

    def fingerprint(self, inputs: Mapping[str, Artifact], parameters: Mapping[str, Any]) -> str:
        """A digest of everything that what the component makes depends on.

        That is: which component, the version of tfdpgen, its parameters but those of `WHERE`, the content of its
        inputs, and what it reads outside. What it draws at random is none of it.
        """
        facts = {
            "component": self.name,
            "version": tfdpgen.__version__,
            "parameters": {name: value for name, value in parameters.items() if name not in WHERE},
            "inputs": {name: artifact.digest for name, artifact in inputs.items()},
            "outside": self.outside(**parameters) if self.outside is not None else None,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def finished(
        self,
        inputs: Mapping[str, str | Path],
        outputs: Mapping[str, str | Path],
        parameters: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether every output is there already, finished, and what an execution would make now.

        Raises:
          ArtifactError: if one is, and its content was changed since: nothing says then what it is.
        """
        try:
            opened = {name: artifact.open(inputs[name]) for name, artifact in self.inputs.items()}
            made = [artifact.open(outputs[name]) for name, artifact in self.outputs.items()]
        except ArtifactError:
            return False
        values = self._values(parameters or {})
        expected = self.fingerprint(opened, values)
        if any(artifact.fingerprint != expected for artifact in made) or len({each.run for each in made}) > 1:
            return False
        for artifact in made:
            if artifact.content_digest() != artifact.digest:
                raise ArtifactError(
                    f"{artifact.path} was changed since it was made by {self.name}, and cannot be used again. Put it "
                    "back as it was, or have it made anew, with --nocache in a pipeline."
                )
        return self.is_there is None or self.is_there(**dict(zip(self.outputs, made, strict=True)), **values)

    def execute(
        self,
        inputs: Mapping[str, str | Path],
        outputs: Mapping[str, str | Path],
        parameters: Mapping[str, Any] | None = None,
        *,
        run: str = "",
    ) -> None:
        """Runs the component; when it returns, every output is finished. A finished earlier output is replaced.

        Args:
          inputs: a folder for each input.
          outputs: a folder for each output.
          parameters: values; those with a default may be left out.
          run: the name of the pipeline's run, for the headers.

        Raises:
          ComponentError: if a name is missing or unknown, a value has the wrong type, an output folder holds something
            other than an artifact.
          FolderInUseError: if another process is writing an output.
          ArtifactError: if an input is missing, unfinished or of another type, or an output would replace an artifact
            of another type.
        """
        quiet_tensorflow()
        parameters = dict(parameters or {})
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        required = {name for name, default in defaults.items() if default is Parameter.REQUIRED}
        self._check_names("inputs", inputs, self.inputs, set(self.inputs))
        self._check_names("outputs", outputs, self.outputs, set(self.outputs))
        self._check_names("parameters", parameters, self.parameters, required)
        values = self._values(parameters)
        opened = {name: artifact.open(inputs[name]) for name, artifact in self.inputs.items()}
        for name, artifact in self.outputs.items():
            if (Path(outputs[name]) / HEADER).exists():
                artifact.open(outputs[name])  # an artifact is only replaced by one of its own type
        with contextlib.ExitStack() as lasting, contextlib.ExitStack() as stack:
            written = {
                name: artifact(stack.enter_context(staged(Path(outputs[name]), private=True)), self.name)
                for name, artifact in self.outputs.items()
            }
            for artifact in written.values():
                artifact.run, artifact.lasting = run, lasting
            fingerprint = self.fingerprint(opened, values)  # before: what is read may change meanwhile
            started = time.monotonic()
            self.fn(**opened, **written, **values)
            for artifact in written.values():
                artifact.seconds = round(time.monotonic() - started, 3)
                artifact.inputs = {name: source.header for name, source in opened.items()}
                artifact.parameters, artifact.fingerprint = values, fingerprint
                artifact.seal()

    def _values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked, with defaults where a value is left out."""
        return {
            name: parameter.checked(name, parameters.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }

    def _check_names(self, kind: str, given: Mapping[str, Any], known: Mapping[str, Any], required: set[str]) -> None:
        """Refuses unknown and missing names."""
        if unknown := set(given) - set(known):
            raise ComponentError(f"{self.name} has no {kind} {sorted(unknown)}; it has {sorted(known)}.")
        if missing := required - set(given):
            raise ComponentError(f"{self.name} needs {kind} {sorted(missing)}.")

    def main(self, argv: Sequence[str] | None = None) -> None:
        """The command line: a flag for each artifact and parameter. Exits 2 on a bad flag and 1 on a refusal."""
        quiet_start()
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        parser = argparse.ArgumentParser(
            prog=f"python -m {spec.name}" if spec and self.fn.__module__ == "__main__" else self.name,
            usage="%(prog)s --NAME=VALUE ...",
            description=self.summary,
            allow_abbrev=False,
        )
        for title, artifacts in (("inputs (folders)", self.inputs), ("outputs (folders)", self.outputs)):
            group = parser.add_argument_group(title)
            for name, artifact in artifacts.items():
                help_text = f"{artifact.__name__}. {inspect.getdoc(artifact)}"
                group.add_argument(f"--{name}", metavar="DIR", required=True, help=help_text)
        group = parser.add_argument_group("parameters")
        for name, parameter in self.parameters.items():
            required = parameter.default is Parameter.REQUIRED
            text = f"{parameter.help} ({'required' if required else f'default: {parameter.default!r}'})"
            options: dict[str, Any] = {"metavar": parameter.type.__name__.upper(), "type": parameter.type}
            if parameter.type is bool:
                options = {"action": argparse.BooleanOptionalAction}
            default = argparse.SUPPRESS  # keeps argparse from adding its own "(default: ...)"
            group.add_argument(f"--{name}", **options, required=required, default=default, help=text.replace("%", "%%"))
        flags = vars(parser.parse_args(argv))
        try:
            self.execute(
                {name: flags.pop(name) for name in self.inputs},
                {name: flags.pop(name) for name in self.outputs},
                flags,
            )
        except (ValueError, OSError) as error:
            sys.exit(f"{self.name} failed: {message_of(error)}")


def beside(
    reads: Callable[..., Any] | None = None, writes: Callable[..., bool] | None = None
) -> Callable[[Component], Component]:
    """Says what a component reads and writes beside its artifacts; see `outside` and `is_there` of `Component`.

    @beside(reads=lambda *, dataset, **_: files_of(dataset))
    @component
    def ingest(...): ...
    """
    return lambda made: dataclasses.replace(made, outside=reads, is_there=writes)


def component(fn: Callable[..., None]) -> Component:
    """Makes a `Component` of a typed function (see the top of this file).

    Raises:
      ComponentError: if an argument is untyped, of an unknown type, without help, or in the wrong place.
    """
    inputs: dict[str, type[Artifact]] = {}
    outputs: dict[str, type[Artifact]] = {}
    parameters: dict[str, Parameter] = {}
    hints = typing.get_type_hints(fn, include_extras=True)
    for name, argument in inspect.signature(fn).parameters.items():
        where = f"`{name}` of component `{fn.__name__}`"
        # `Input[...]` and `Output[...]` are Annotated too.
        if typing.get_origin(hints.get(name)) is not typing.Annotated:
            got = hints.get(name, "no type")
            raise ComponentError(f"{where} should be Input[...], Output[...] or Annotated[type, 'help']; got {got}.")
        kind, note = typing.get_args(hints[name])[:2]
        if note in (READ, WRITTEN):
            if not (isinstance(kind, type) and issubclass(kind, Artifact)):
                raise ComponentError(f"{where} should name a type of artifact; got {kind!r}.")
            if argument.kind is argument.KEYWORD_ONLY or argument.default is not argument.empty:
                raise ComponentError(f"{where} is an artifact, which comes before the `*` and has no default.")
            (inputs if note is READ else outputs)[name] = kind
            continue
        if kind not in PARAMETER_TYPES or not isinstance(note, str):
            raise ComponentError(f"{where} should be Annotated[str | int | float | bool, 'help']; got {hints[name]}.")
        if argument.kind is not argument.KEYWORD_ONLY:
            raise ComponentError(f"{where} is a parameter, which comes after the `*`.")
        parameters[name] = Parameter(kind, argument.default, note)
        if argument.default is not argument.empty:
            parameters[name].checked(f"{where}: its default", argument.default)
    if not outputs:
        raise ComponentError(f"component `{fn.__name__}` has no output; give it an argument of type Output[...].")
    return Component(fn.__name__, fn, inputs, outputs, parameters)


def run_note(run: str, folder: Path) -> str:
    """Whose run it was that reserved something, and where its results are, for a ledger."""
    return f" ({f'run {run}, ' if run else ''}{user_name()} on {platform.node() or 'an unnamed machine'}, {folder})"


@contextlib.contextmanager
def staged(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A hidden folder beside `path` that becomes `path` when the block ends without an exception.

    Args:
      path: the final name. An artifact or an empty folder there is replaced.
      private: whether only the owner may look into the folder.

    Raises:
      ComponentError: if something else is there.
      FolderInUseError: if a living process is writing the same path.
    """
    path = Path(os.path.abspath(path))
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    with folder_lock(part):
        for leftover in (*part.iterdir(), old):
            remove(leftover)
        if private:
            part.chmod(0o700)
        try:
            yield part
            fsync_tree(part)
        except BaseException:
            remove(part)
            raise
        replace(part, path, old)


def check_replaceable(path: Path) -> None:
    """Raises a ComponentError where `path` holds something other than an artifact, which nothing may replace."""
    if path.exists() and not (path / HEADER).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise ComponentError(
            f"{path} holds something that is not an artifact and is left alone; choose another folder."
        )


def is_refusal(error: BaseException) -> bool:
    """Whether an error is an answer, to input or for want of budget, and no mishap."""
    from tfdpgen.privacy import BackupError, BudgetExceededError, LedgerError, TamperedError

    answers = (ComponentError, ArtifactError, DataError, BackupError, BudgetExceededError, LedgerError, TamperedError)
    return isinstance(error, answers)


def message_of(error: BaseException) -> str:
    """What is said of an error: its message on one line, or a list of bad data on as many as it has."""
    return str(error) if isinstance(error, DataError) else one_line(error)


def one_line(error: BaseException) -> str:
    """An error's message on one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def quiet_start() -> None:
    """Keeps the start-up noise of TensorFlow and Beam out of the way of what is said to the user.

    Call it before they are imported. A TF_CPP_MIN_LOG_LEVEL that is set already stays.

    Raises:
      SystemExit: with a sentence that names the command to run, where a package is missing.
    """
    if problem := problem_with_environment():
        sys.exit(problem)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())


def quiet_tensorflow() -> None:
    """Has TensorFlow's first import in this process happen unheard.

    Its libraries announce themselves on standard error before they have read TF_CPP_MIN_LOG_LEVEL; one of 0 keeps that.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0" or "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _import_component(module: str, name: str) -> Component:
    """The component of that name."""
    return getattr(importlib.import_module(module), name)
