"""The memory that is left is the least of what the system and the control groups leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfdpgen.machine import PeakMemory, available_memory, memory_in_use

_GIB = 2**30


def _written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("", {}, 8 * _GIB),  # no control groups
        ("0::/\n", {"memory.max": "max", "memory.current": "1"}, 8 * _GIB),
        (  # a container: its own group is the root that it sees; cached files give way
            "0::/\n",
            {
                "memory.max": str(4 * _GIB),
                "memory.current": str(3 * _GIB),
                "memory.stat": f"anon 1\ninactive_file {_GIB}",
            },
            2 * _GIB,
        ),
        (  # a batch job: the limit is that of a group above its own
            "0::/job/step\n",
            {"job/step/memory.max": "max", "job/memory.max": str(2 * _GIB), "job/memory.current": str(_GIB)},
            _GIB,
        ),
        ("0::/\n", {"memory.max": str(_GIB), "memory.current": str(2 * _GIB)}, 0),  # over it already
        (  # version 1
            "5:cpu:/x\n4:memory:/x\n",
            {"memory/x/memory.limit_in_bytes": str(3 * _GIB), "memory/x/memory.usage_in_bytes": str(_GIB)},
            2 * _GIB,
        ),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"},
            8 * _GIB,
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, groups: str, files: dict[str, str], left: int) -> None:
    meminfo = f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {8 * 2**20} kB\n"
    proc = _written(tmp_path / "proc", {"meminfo": meminfo, "self/cgroup": groups})
    assert available_memory(proc, _written(tmp_path / "cgroup", files)) == left


def test_where_the_system_does_not_say_it_is_unknown(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) is None


def test_a_peak_is_seen_that_is_gone_at_the_end() -> None:
    before = memory_in_use()
    with PeakMemory() as peak:
        block = np.ones(2**26, np.uint8)
        for _ in range(20):  # long enough to be seen
            block += 1
        del block
    assert before + 0.9 * 2**26 < peak.bytes < before + 4 * 2**26
    assert memory_in_use() < peak.bytes - 0.5 * 2**26  # so what is given is no reading of the end
