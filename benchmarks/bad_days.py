"""What becomes of a run on a bad day: it is killed, the disk is full, the ledger is locked, files are damaged.

    python benchmarks/bad_days.py                        # all of them, about half an hour on two cores
    python benchmarks/bad_days.py --only=kills --kills=30
    python benchmarks/bad_days.py --data_dir=DIR         # where TFDS keeps MNIST, for the truncated record

Every day is a real run of `pipelines/local_run.py` on the digits with little of everything, in processes of its own,
with a ledger of its own. A day is survived if the run ends well, or with one clear line and no traceback, and if
afterwards the same command finishes, the ledger is as its history says, the training was reserved once, and every
artifact has the content that its header says. Days that need what this machine lacks (mounting a file system, faketime)
are said to be left out. Exits 1 if one is not survived.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import components
from components.artifacts import HEADER
from tfdpgen.privacy import Ledger

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "--num_synthetic=60",
    "--attack_repetitions=2",
    "--attack_candidates=50",
    "--classifiers=",
    "--classifier_seeds=1",
]
_MINUTE = 60.0


class NotHere(Exception):
    """This machine cannot have such a day."""


class Lost(Exception):
    """Something was lost, spent twice, or said badly."""


class Day:
    """One output folder, one ledger, and runs of one command."""

    def __init__(self, folder: Path, *flags: str, output: Path | None = None) -> None:
        self.folder, self.output, self.data = folder, output or folder / "output", folder / "data"
        self.flags = [*SMALL, f"--output_dir={self.output}", *flags]

    @property
    def ledger(self) -> Path:
        return self.data / "tfdpgen" / "ledger.sqlite"

    def start(self, *prefix: str) -> subprocess.Popen[str]:
        """Starts the command, in a session of its own."""
        command = [*prefix, sys.executable, str(ROOT / "pipelines" / "local_run.py"), *self.flags]
        environment = {**os.environ, "XDG_DATA_HOME": str(self.data), "CUDA_VISIBLE_DEVICES": "-1"}
        return subprocess.Popen(
            command,
            env=environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *prefix: str, fails: str = "") -> str:
        """Runs the command to its end; what it said.

        Raises:
          Lost: if it fails where it should not, the other way round, without saying `fails`, or with a traceback.
        """
        process = self.start(*prefix)
        said, _ = process.communicate(timeout=30 * _MINUTE)
        if bool(fails) != bool(process.returncode):
            raise Lost(f"ended with {process.returncode}: {said[-600:]}")
        if fails and fails not in said:
            raise Lost(f"did not say {fails!r}: {said[-600:]}")
        if "Traceback (most recent" in said:
            raise Lost(f"a traceback: {said[-1000:]}")
        return said

    def check(self, reservations: int = 1) -> None:
        """Holds that all is there, belongs together and was paid for once.

        Raises:
          Lost: if not.
        """
        ledger = Ledger(self.ledger, create=False)
        ledger.verify()
        if len(ledger.reservations()) != reservations:
            raise Lost(f"{len(ledger.reservations())} reservations in place of {reservations}")
        if not (self.output / "summary.json").exists():
            raise Lost("no summary.json")
        headers = [path for path in (self.output / "internal").rglob(HEADER) if "earlier" not in path.parts]
        if len(headers) < 9:
            raise Lost(f"{len(headers)} artifacts")
        for path in headers:
            kind = getattr(components, json.loads(path.read_text())["type"])
            artifact = kind.open(path.parent)
            if artifact.content_digest() != artifact.digest:
                raise Lost(f"{path.parent} is not what its header says")


@contextlib.contextmanager
def _mounted(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """A small file system; yields what mounts it anew with other options.

    Raises:
      NotHere: if this process may not mount.
    """
    folder.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            raise NotHere("may not mount a file system")

    mount(f"size={kilobytes}k")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kills(folder: Path, flags: argparse.Namespace) -> str:
    """Killed at random moments of the whole pipeline; then the same command again."""
    method = "--method=c_vae"
    began = time.monotonic()
    Day(_made(folder / "whole"), method).run()
    whole = time.monotonic() - began
    rng, trained = random.Random(flags.seed), 0
    for number in range(flags.kills):
        day = Day(_made(folder / f"kill{number}"), method)
        process = day.start()
        time.sleep(rng.uniform(0.1, 1.0) * whole)
        _kill(process)
        said = day.run()
        trained += "[3/8] train ..." in said
        day.check()
        shutil.rmtree(day.folder)
        print(f"  kill {number + 1} of {flags.kills}: survived", flush=True)
    return (
        f"{flags.kills} of {flags.kills} at random moments of {whole:.0f} s; in {trained} the training was not finished"
    )


def disk_full(folder: Path, flags: argparse.Namespace) -> str:
    """The disk is full, at several sizes; then there is room, and the same command again."""
    sizes, failed = (100, 300, 500, 700, 900, 1100), 0
    for size in sizes:
        with _mounted(folder / f"small{size}", size) as remount:
            day = Day(_made(folder / f"day{size}"), output=folder / f"small{size}" / "output")
            process = day.start()
            said, _ = process.communicate(timeout=30 * _MINUTE)
            if process.returncode:
                failed += 1
                if "Traceback (most recent" in said or "No space left" not in said:
                    raise Lost(f"at {size} KiB: {said[-800:]}")
            remount("size=200m")
            day.run()
            day.check()
    return f"failed in a line at {failed} of {len(sizes)} sizes, and went on once there was room, paid once"


def read_only(folder: Path, flags: argparse.Namespace) -> str:
    """The output folder cannot be written."""
    with _mounted(folder / "ro", 50_000) as remount:
        day = Day(_made(folder / "day"), output=folder / "ro" / "output")
        remount("ro")
        day.run(fails="should be a folder that can be written to")
        if day.ledger.exists() and Ledger(day.ledger).reservations():
            raise Lost("something was reserved")
        remount("rw")
        day.run()
        day.check()
    return "refused in a line, nothing reserved"


def corrupted_checkpoint(folder: Path, flags: argparse.Namespace) -> str:
    """A training is killed, and its checkpoint damaged."""
    day = Day(_made(folder / "day"), "--method=c_vae")
    for _ in range(20):
        process = day.start()
        backup = day.output / "internal" / "backup"
        while process.poll() is None and not any(backup.glob("step-*")):
            time.sleep(0.02)
        _kill(process)
        files = [path for path in backup.rglob("*") if path.is_file() and "step-" in str(path)]
        if files:
            break
        shutil.rmtree(day.folder)
        _made(folder / "day")
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    for place in range(0, len(content), 97):
        content[place] ^= 0xFF
    largest.write_bytes(content)
    process = day.start()
    said, _ = process.communicate(timeout=30 * _MINUTE)
    if "Traceback (most recent" in said:
        raise Lost(f"a traceback: {said[-1000:]}")
    if process.returncode:
        if str(backup) not in said and "backup" not in said:
            raise Lost(f"does not say what is damaged: {said[-600:]}")
        reserved = len(Ledger(day.ledger).reservations())
        return f"refused in a line that names it; {reserved} reservation, which stays"
    day.check()
    return "the training went on or began, and was paid once"


def truncated_record(folder: Path, flags: argparse.Namespace) -> str:
    """A TFRecord of the private data ends in the middle."""
    source = Path(flags.data_dir or os.environ.get("TFDS_DATA_DIR", "")) / "mnist"
    if not source.is_dir():
        raise NotHere("no TFDS MNIST: --data_dir")
    data = _made(folder / "tfds") / "mnist"
    shutil.copytree(source, data)
    (record,) = data.rglob("*train.tfrecord*")
    record.chmod(0o600)
    with record.open("r+b") as file:
        file.truncate(record.stat().st_size // 2)
    day = Day(_made(folder / "day"), "--dataset=mnist", f"--data_dir={folder / 'tfds'}")
    day.run(fails="ingest failed")
    if day.ledger.exists() and Ledger(day.ledger).reservations():
        raise Lost("something was reserved")
    return "refused in a line, nothing reserved"


def locked_ledger(folder: Path, flags: argparse.Namespace) -> str:
    """Another process holds the ledger's lock for a minute."""
    day = Day(_made(folder / "day"))
    Ledger(day.ledger)
    other = sqlite3.connect(day.ledger, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(_MINUTE, lambda: other.execute("COMMIT"))
    timer.start()
    began = time.monotonic()
    day.run()
    day.check()
    return f"waited and finished after {time.monotonic() - began:.0f} s"


def clock_set_back(folder: Path, flags: argparse.Namespace) -> str:
    """The clock is two years behind in the second run."""
    if not shutil.which("faketime"):
        raise NotHere("faketime is not installed")
    day = Day(_made(folder / "day"))
    day.run()
    day.flags.append("--epsilon=1")
    day.run("faketime", "-f", "-2y")
    day.check(reservations=2)
    spent = Ledger(day.ledger).standings()[0].spent
    if not 3.0 < spent < 4.0:
        raise Lost(f"epsilon {spent}")
    return f"both count: epsilon {spent:.2f} of 3 and 1"


def two_runs(folder: Path, flags: argparse.Namespace) -> str:
    """Two runs into one output folder at the same time."""
    day = Day(_made(folder / "day"))
    processes = [day.start() for _ in range(2)]
    said = [process.communicate(timeout=30 * _MINUTE)[0] for process in processes]
    codes = sorted(process.returncode for process in processes)
    if codes not in ([0, 2], [0, 0]) or any("Traceback (most recent" in one for one in said):
        raise Lost(f"{codes}: {said[0][-400:]} {said[1][-400:]}")
    day.check()
    return "one finished, the other was told that the folder is in use" if codes == [0, 2] else "one after the other"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


DAYS = {
    each.__name__: each
    for each in (
        kills,
        disk_full,
        read_only,
        corrupted_checkpoint,
        truncated_record,
        locked_ledger,
        clock_set_back,
        two_runs,
    )
}


def main() -> int:
    """Prints a line for each day; returns the exit status."""
    parser = argparse.ArgumentParser(description="Runs the pipeline on bad days, and says what became of it.")
    parser.add_argument("--only", action="append", choices=list(DAYS), help="one day; may be given several times")
    parser.add_argument("--kills", type=int, default=30, help="random moments (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--data_dir", default="", help="where TFDS keeps MNIST")
    flags = parser.parse_args()
    lost = 0
    for name, day in DAYS.items():
        if flags.only and name not in flags.only:
            continue
        with tempfile.TemporaryDirectory(prefix="bad-day-") as folder:
            began = time.monotonic()
            try:
                outcome = day(Path(folder), flags)
            except NotHere as reason:
                outcome = f"left out: {reason}"
            except Lost as reason:
                lost += 1
                outcome = f"NOT SURVIVED: {reason}"
        print(f"{name.replace('_', ' '):22} {time.monotonic() - began:5.0f} s  {outcome}", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
