"""Makes a virtual environment that holds exactly what requirements.lock pins, on a machine with a bare Python.

    python3 scripts/bootstrap.py .venv               # what `make setup` runs
    python3 scripts/bootstrap.py --run-time .venv    # without what is only for development

It needs Python 3.11, 3.12 or 3.13 and nothing but its standard library. Debian and Ubuntu ship Python without pip: then
pip (and, where the machine has none, the root certificates that pip trusts) is unpacked from their own packages into a
temporary folder, which needs no administrator. Every package is checked against its hash in the lock, and those that
come as source are built with the locked setuptools. The lock is complete, so that nobody asks what packages declare
that they need: the pins of tensorflow-privacy are of an older TensorFlow and an older Python. pip's own configuration
and environment variables apply.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
EXTRAS = "# ---- extras"  # the line of the lock below which nothing is needed at run time
BUILD = ("pip", "setuptools", "wheel")
WRONG_PYTHON = (
    "tfdpgen needs Python 3.11, 3.12 or 3.13, which TensorFlow 2.21 supports; "
    f"this is Python {sys.version.split()[0]}. Install one of these (a package such as python3.13) "
    "or name one with `make setup PYTHON=/path/to/python3.13`."
)
NO_PIP = (
    "This Python has no pip, and it could not be had from the system's packages. "
    "Install the package python3-venv (as root: apt-get install python3-venv) and run this again."
)


def main() -> None:
    """Makes the environment anew; leaves `.dependencies` in it when, and only when, it is complete."""
    parser = argparse.ArgumentParser(description="Makes a virtual environment from requirements.lock.")
    parser.add_argument("--run-time", action="store_true", help="leave out what is only for development")
    parser.add_argument("folder", type=Path, help="where the environment goes; what is there is replaced")
    arguments = parser.parse_args()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(WRONG_PYTHON)
    lock = LOCK.read_text()
    if arguments.run_time:
        lock = lock.partition(EXTRAS)[0]

    folder = arguments.folder.absolute()
    print(f"Making {folder} with Python {sys.version.split()[0]}", flush=True)
    with_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, clear=True, symlinks=True, with_pip=with_pip)
    python = folder / "bin" / "python"
    with tempfile.TemporaryDirectory() as scratch:
        first_pip = [python, "-m", "pip"] if with_pip else _borrowed_pip(python, Path(scratch))
        (Path(scratch) / "build.lock").write_text("\n".join(e for e in _entries(lock) if e.split("==")[0] in BUILD))
        (Path(scratch) / "all.lock").write_text(lock)
        _install(first_pip, Path(scratch) / "build.lock")
        _install([python, "-m", "pip"], Path(scratch) / "all.lock")
    (folder / ".dependencies").touch()


def _entries(lock: str) -> list[str]:
    """The entries of a lock, each a pinned package with its hashes."""
    return re.findall(r"^\S+==.*(?:\n    .*)*", lock, re.MULTILINE)


def _install(pip: list[str | Path], requirements: Path) -> None:
    """Installs what `requirements` pins, or ends the program with pip's own message above."""
    options = ["--require-hashes", "--no-deps", "--ignore-requires-python", "--no-build-isolation"]
    options += ["--disable-pip-version-check", "--progress-bar=on"]
    if subprocess.run([*pip, "install", *options, "-r", requirements]).returncode:
        sys.exit("The installation failed; pip's message is above. Run the same command again when it is mended.")


def _borrowed_pip(python: Path, scratch: Path) -> list[str | Path]:
    """A pip from outside the environment that installs into it: this Python's own, or the system's package."""
    own = [sys.executable, "-m", "pip", f"--python={python}"]  # pip 22.3 and newer
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return [*own]
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        sys.exit(NO_PIP)
    print("This Python has no pip: unpacking the system's package of it into a temporary folder", flush=True)
    _unpack("python3-pip-whl", scratch)
    wheels = sorted(scratch.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        sys.exit(NO_PIP)
    pip: list[str | Path] = [python, wheels[-1] / "pip"]
    settings = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists() and ".cert=" not in settings:
        _unpack("ca-certificates", scratch)
        bundle = scratch / "certificates.pem"
        bundle.write_bytes(b"".join(c.read_bytes() for c in sorted(scratch.glob("usr/share/ca-certificates/*/*.crt"))))
        os.environ.setdefault("REQUESTS_CA_BUNDLE", str(bundle))
    return pip


def _unpack(package: str, scratch: Path) -> None:
    """Unpacks a package of Debian or Ubuntu into `scratch`, without touching the system's state."""
    options = ["APT::Sandbox::User=", "Acquire::Retries=3"]
    for kind in ("State", "Cache"):
        for sub in ("lists/partial", "archives/partial"):
            (scratch / kind / sub).mkdir(parents=True, exist_ok=True)
        options.append(f"Dir::{kind}={scratch / kind}")
    options.append("Dir::State::status=/var/lib/dpkg/status")
    apt_get = ["apt-get", "-q", *(f"-o{option}" for option in options)]
    for command in ([*apt_get, "update"], [*apt_get, "download", package]):
        if subprocess.run(command, cwd=scratch).returncode:
            sys.exit(NO_PIP)
    for archive in scratch.glob(f"{package}_*.deb"):
        subprocess.run(["dpkg", "-x", archive, scratch], check=True)


if __name__ == "__main__":
    main()
