r"""One step of a pipeline, as Kubeflow runs it in a container.

    python3 -m pipelines.kubeflow_step --component=components.train:train --input=examples=DIR --output=release=DIR \
        --output=networks=DIR --executor_input='{"inputs": {"parameterValues": {"epsilon": 1.0}}}'

Kubeflow fills in the folders and the executor input: a JSON text with the parameters, in their types, and with the
file in which it expects the step to name its finished outputs. This module does not need kfp.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.component import Component, ComponentError, message_of, quiet_start


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Exits 1, with one sentence, where the component refuses its input."""
    quiet_start()
    parser = argparse.ArgumentParser(prog="python3 -m pipelines.kubeflow_step", allow_abbrev=False)
    parser.add_argument("--component", required=True, metavar="MODULE:NAME", help="the component to run")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=DIR", help="folder of an input")
    parser.add_argument("--output", action="append", default=[], metavar="NAME=DIR", help="folder of an output")
    parser.add_argument("--executor_input", required=True, metavar="JSON", help="Kubeflow's ExecutorInput message")
    flags = parser.parse_args(argv)
    try:
        executor_input = json.loads(flags.executor_input)
        _component(flags.component).execute(
            dict(text.split("=", 1) for text in flags.input),
            dict(text.split("=", 1) for text in flags.output),
            executor_input.get("inputs", {}).get("parameterValues", {}),
        )
        _report(executor_input.get("outputs", {}))
    except (ValueError, OSError) as error:
        sys.exit(f"{flags.component.rpartition(':')[2]} failed: {message_of(error)}")


def _report(outputs: dict[str, Any]) -> None:
    """Writes the outputs' names and addresses to the file that Kubeflow has named, if it has named one."""
    if "outputFile" not in outputs:
        return
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"artifacts": outputs.get("artifacts", {})}))


def _component(reference: str) -> Component:
    """The component that `module:name` refers to.

    Raises:
      ComponentError: if it refers to anything else.
    """
    module, _, name = reference.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, Component):
        raise ComponentError(f"`component` should name a component, as components.train:train; got {reference!r}.")
    return found


if __name__ == "__main__":
    main()
