"""Compiles the synthesis pipeline for Kubeflow Pipelines.

    python pipelines/kubeflow_run.py --output=pipeline.yaml --image=registry.example/tfdpgen:1

Upload the file to Kubeflow; what the local run takes as flags are its runtime parameters.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from absl import app

from components.component import quiet_start
from pipelines.local_run import flags_parser


@dataclasses.dataclass(frozen=True)
class KubeflowConfig:
    """What to write."""

    output: str = "pipeline.yaml"
    """File to write: KFP v2 IR YAML."""

    image: str = "tfdpgen:latest"
    """Container image with this package, which every step runs in."""


def main(config: KubeflowConfig) -> None:
    """Compiles with the parsed flags."""
    try:
        from pipelines.kubeflow_runner import compile_pipeline
    except ModuleNotFoundError as error:
        if error.name != "kfp":
            raise
        sys.exit("Kubeflow's compiler kfp is not installed; install it with: pip install 'tfdpgen[kubeflow]'")
    from pipelines.synthesis import SYNTHESIS

    try:
        compile_pipeline(SYNTHESIS, config.output, image=config.image)
    except (ValueError, OSError) as error:
        sys.exit(f"kubeflow_run.py: {error}")
    print(f"Wrote {config.output}.")


def entry_point(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """The command line, as that of the local run; it does not return."""
    quiet_start()
    parser = flags_parser(KubeflowConfig, (__doc__ or "").partition("\n")[0], program)
    app.run(main, argv=None if arguments is None else [program or sys.argv[0], *arguments], flags_parser=parser)


if __name__ == "__main__":
    entry_point()
