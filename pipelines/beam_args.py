"""Beam's flags, checked before anything runs: Beam itself drops what it does not know and runs without it.

check_beam_args(["--runner=FlinkRunner", "--flink_master=host:8081"])      # or a ValueError that names the flag
"""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Sequence


def check_beam_args(arguments: Sequence[str]) -> None:
    """Refuses flags that Beam does not know, values that it cannot read, and runners that are not there.

    A runner that hands flags on to a job server, as FlinkRunner, may have flags that only that server knows: for these
    runners a flag is refused only where it is nearly one that is known.

    Args:
      arguments: Beam's flags, as `--runner=FlinkRunner`.

    Raises:
      ValueError: that names the flag and, where one is near, the flag that was meant.
    """
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.runner import create_runner

    if arguments and not arguments[0].startswith("--"):
        raise ValueError(f"`beam_args` should be flags of the form --flag=value; got {arguments[0]!r}.")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given = PipelineOptions(list(arguments)).get_all_options(retain_unknown_options=True)
    except SystemExit:
        complaint = said.getvalue().strip().splitlines()[-1].rpartition("error: ")[-1]
        raise ValueError(f"`beam_args` should be flags that Beam can read: {complaint}.") from None
    known = PipelineOptions([]).get_all_options()
    runner = None
    if given["runner"]:
        try:
            runner = create_runner(given["runner"])
        except (ValueError, ImportError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"`beam_args` should name a runner that Beam has; got {given['runner']!r} ({reason})"
            ) from None
    for name in sorted(set(given) - set(known)):
        near = difflib.get_close_matches(name, list(known), 1, cutoff=0.8)
        if near or not isinstance(runner, PortableRunner):
            meant = f" Did you mean --{near[0]}?" if near else ""
            raise ValueError(f"`beam_args` should be flags that Beam knows; it does not know --{name}.{meant}")
