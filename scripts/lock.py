"""Re-makes requirements.lock from setup.py: every version and every hash, and no address of any registry.

    make lock                     # keeps the versions that are locked, where setup.py still allows them
    make lock ARGS=--upgrade      # takes the newest that setup.py allows

One lock serves Python 3.11 to 3.13 on Linux, x86_64 and aarch64; what only one of them needs is marked so. It has two
parts, parted by the line `EXTRAS` below: what the package needs at run time, the extras for Kubeflow, DICOM and
PostgreSQL included (and pip, setuptools and wheel, which build the few packages that come as source), then what only
the other extras add. Left out are the extras `federated`, since Flower pins packages that others need newer, and those
of exporters, which bring many packages for few.

tensorflow-privacy is locked with what its used parts import (`tool.uv` in pyproject.toml) in place of what it declares,
which are pins of an older TensorFlow. The lock is complete all the same, and is installed without looking at what
packages declare.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

from tfdpgen.installation import TENSORFLOW_PRIVACY

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = "# Every package that tfdpgen is run and tested with, pinned by hash. Made by `make lock`; do not edit."
EXTRAS = "# ---- extras: not needed at run time ----"
BUILD = "pip\nsetuptools\nwheel\n"
RUN_TIME_EXTRAS = ("kubeflow", "dicom", "postgres")  # the image is what Kubeflow runs the steps in
LEFT_OUT = ("federated", "mlflow", "openlineage")
SOURCE_ONLY = ("kfp-server-api", "promise")  # pure Python that is published without wheels
PYTHONS, MACHINES = ("3.11", "3.12", "3.13"), ("x86_64", "aarch64")


def declared(extras: bool) -> str:
    """What the installed package declares that it requires, a line each; `make` installs it anew with setup.py."""
    lines = [TENSORFLOW_PRIVACY]
    for requirement in map(Requirement, importlib.metadata.requires("tfdpgen") or ()):
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in _locked_extras()):
            continue
        if extras or marker is None or any(marker.evaluate({"extra": extra}) for extra in RUN_TIME_EXTRAS):
            requirement.marker = None
            lines.append(str(requirement))
    return "\n".join(lines) + "\n"


def _locked_extras() -> list[str]:
    """All extras of the installed package but those that are not locked, and none."""
    extras = importlib.metadata.metadata("tfdpgen").get_all("Provides-Extra") or []
    return ["", *(extra for extra in extras if extra not in LEFT_OUT)]


def resolve(*options: str, extras: bool) -> list[str]:
    """The pinned entries, each with its hashes and, where some Python or machine does without it, its marker."""
    command = ["uv", "pip", "compile", "-", *options, "--universal", "--python-version=3.11", "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--no-emit-index-url"]
    command += ["--only-binary=:all:", *(f"--no-binary={name}" for name in SOURCE_ONLY)]
    print(f"Resolving{' with all extras' if extras else ''}", file=sys.stderr, flush=True)
    lines = declared(extras) + BUILD
    found = subprocess.run(command, cwd=ROOT, input=lines, stdout=subprocess.PIPE, text=True, check=True).stdout
    entries = re.findall(r"^\S+==.*(?:\n    .*)*", found, re.MULTILINE)
    return [entry for entry in map(_marked_where_needed, entries) if entry]


def _marked_where_needed(entry: str) -> str:
    """An entry without a marker that holds in every environment, and without one that others hold for none."""
    found = re.match(r"(\S+==\S+) ; (.*?) \\\n", entry)
    if not found:
        return entry
    name, marker = found.groups()
    holds = {
        (python, machine): Marker(marker).evaluate(
            {
                "python_version": python,
                "python_full_version": f"{python}.1",
                "sys_platform": "linux",
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
                "implementation_name": "cpython",
            }
        )
        for python in PYTHONS
        for machine in MACHINES
    }
    if not any(holds.values()):
        return ""
    kept = "" if all(holds.values()) else f" ; {marker}"
    return f"{name}{kept} \\\n{entry[found.end() :]}"


def main() -> None:
    """Resolves everything once, then finds the part of it that is needed at run time."""
    parser = argparse.ArgumentParser(description="Re-makes requirements.lock from setup.py.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that setup.py allows")
    keep = LOCK.exists() and not parser.parse_args().upgrade
    options = [f"--constraints={LOCK}"] if keep else []
    everything = resolve(*options, extras=True)
    needed = {_name(entry) for entry in resolve(*options, extras=False)}
    parts = [entry for entry in everything if _name(entry) in needed]
    extras = [entry for entry in everything if _name(entry) not in needed]
    LOCK.write_text("\n".join([HEADER, *parts, EXTRAS, *extras]) + "\n")
    print(f"{LOCK.name}: {len(parts)} packages, and {len(extras)} more for the extras.", file=sys.stderr)


def _name(entry: str) -> str:
    """The package that an entry pins."""
    return entry.split("==")[0]


if __name__ == "__main__":
    main()
