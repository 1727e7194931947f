"""Nearest-row search: ours beside scikit-learn's and, where it is installed, faiss's, on the same rows.

    python benchmarks/neighbours.py                     # 60,000 rows, 20,000 queries, 784 numbers each
    python benchmarks/neighbours.py --queries=2000 --rows=20000
    pip install faiss-cpu && python benchmarks/neighbours.py --peers=ours,faiss

Prints seconds, seconds of CPU, the memory that the search added at its peak, and the share of queries whose nearest row
is the one that `ours` found. Rows are bytes as images are; what a library needs for its own type counts as its time.
Each runs in a process of its own, so that peaks are its own. No data are private: this is about speed alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

Search = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], npt.NDArray[np.integer]]


def ours(queries: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
    """`tfdpgen.attacks.neighbours`."""
    from tfdpgen.attacks.neighbours import nearest

    return nearest(queries, rows)[1]


def sklearn(queries: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
    """`pairwise_distances_argmin_min` in 32 bits."""
    from sklearn.metrics import pairwise_distances_argmin_min

    found, _ = pairwise_distances_argmin_min(queries.astype(np.float32) / 255, rows.astype(np.float32) / 255)
    return found


def sklearn_chunked(queries: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
    """`pairwise_distances_chunked` in 32 bits."""
    from sklearn.metrics import pairwise_distances_chunked

    chunks = pairwise_distances_chunked(
        queries.astype(np.float32) / 255,
        rows.astype(np.float32) / 255,
        reduce_func=lambda block, start: block.argmin(axis=1),
        working_memory=128,
    )
    return np.concatenate(list(chunks))


def faiss(queries: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
    """Exact search, `faiss.knn`."""
    import faiss  # pyright: ignore[reportMissingImports]

    return faiss.knn(queries.astype(np.float32) / 255, rows.astype(np.float32) / 255, 1)[1][:, 0]


PEERS: dict[str, Search] = {f.__name__: f for f in (ours, sklearn, sklearn_chunked, faiss)}


def measure(name: str, num_queries: int, num_rows: int, dimensions: int) -> tuple[float, float, float, np.ndarray]:
    """Seconds, seconds of CPU, megabytes added at the peak, and positions found."""
    rng = np.random.default_rng(0)
    rows = rng.integers(256, size=(num_rows, dimensions), dtype=np.uint8)
    queries = rng.integers(256, size=(num_queries, dimensions), dtype=np.uint8)
    PEERS[name](queries[:10], rows[:100])  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.monotonic(), time.process_time()
    found = PEERS[name](queries, rows)
    seconds = time.monotonic() - wall, time.process_time() - cpu
    return *seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, found


def main() -> None:
    """Prints a line for each peer that is installed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dimensions", type=int, default=784)
    parser.add_argument("--peers", default=",".join(PEERS))
    flags = parser.parse_args()
    print(f"{flags.queries} queries among {flags.rows} rows of {flags.dimensions} numbers")
    print(f"{'':16}{'seconds':>10}{'CPU s':>10}{'peak MB':>10}{'agrees':>10}")
    expected = None
    for name in flags.peers.split(","):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                result = pool.apply(measure, (name, flags.queries, flags.rows, flags.dimensions))
            except ImportError:
                print(f"{name:16}{'not installed':>20}")
                continue
        expected = result[3] if expected is None else expected
        share = float(np.mean(result[3] == expected))
        print(f"{name:16}{result[0]:10.1f}{result[1]:10.1f}{result[2]:10.0f}{share:10.4f}", flush=True)


if __name__ == "__main__":
    main()
