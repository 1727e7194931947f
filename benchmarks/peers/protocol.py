"""How `dp_step.py` has a peer run steps: a process of its own, a line of request, a line of JSON back.

    prepare a         -> {"parameters": 138561, "modes": ["hooks", "ghost"]}     after each mode's warm-up
    step a hooks      -> 0.412                                                   seconds of one step

A peer's program ends in `serve(prepare)`; `Peer` is the other end. The process needs another environment than
TensorFlow's, so this file needs the standard library only. Between requests a peer waits in a read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SETTLE = 0.01  # seconds after a step, by which the threads of a pool that spin for their next task have gone to sleep
WARM_UP = 0.1  # seconds of steps that are not timed, since cores and caches are slow for whoever has just woken

Step = Callable[[], object]
Prepare = Callable[[str], tuple[int, Mapping[str, Callable[[], Step]]]]


def seconds_of(step: Step) -> float:
    """Wall-clock seconds of one call among others, as in a training, when whoever ran before has left the cores."""
    time.sleep(SETTLE)
    started = time.perf_counter()
    step()
    while time.perf_counter() < started + WARM_UP:
        step()
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def serve(prepare: Prepare) -> None:
    """Answers requests until there are no more.

    Args:
      prepare: the letter of a work -> the number of its network's parameters, and for each mode what makes its step,
        which ends when its update is done. A mode that cannot be made or run is left out, with a word on stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    steps: dict[str, Step] = {}
    for line in sys.stdin:
        request, work, *mode = line.rstrip("\n").split(maxsplit=2)
        if request == "prepare":
            parameters, modes = prepare(work)
            steps = {}
            for name, make in modes.items():
                try:
                    step = make()
                    step()
                    step()
                except Exception as error:
                    print(f"({work}) {Path(sys.argv[0]).stem}, {name}: {error}", file=sys.stderr)
                else:
                    steps[name] = step
            answer: Any = {"parameters": parameters, "modes": list(steps)}
        else:
            answer = seconds_of(steps[mode[0]])
        print(json.dumps(answer), file=answers, flush=True)


class Peer:
    """A peer's process, with as many threads as TensorFlow takes by default: one for each core.

    Args:
      title: how it is called in what is printed.
      python: the interpreter of its environment.
      program: its file.
    """

    def __init__(self, title: str, python: Path, program: Path) -> None:
        self.title = title
        threads = str(len(os.sched_getaffinity(0)))
        # OpenMP's threads spin by default, and steps take up to 17 times as long where anybody else wants the cores.
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [python, program], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *details: Any) -> None:
        self._process.communicate()

    def prepare(self, work: str, parameters: int) -> list[str]:
        """Has the peer make a work, and returns the modes that it can run.

        Raises:
          ValueError: if the peer's network has another number of parameters.
        """
        answer = self._ask(f"prepare {work}")
        if answer["parameters"] != parameters:
            raise ValueError(
                f"`parameters` of work ({work}) should be {parameters:,}; {self.title} has {answer['parameters']:,}."
            )
        return answer["modes"]

    def seconds_of(self, work: str, mode: str) -> float:
        """Seconds that one step of a prepared work takes."""
        return self._ask(f"step {work} {mode}")

    def _ask(self, request: str) -> Any:
        """The answer to one request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(request, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.title} ended at {request!r}; what it said is above.")
        return json.loads(answer)
