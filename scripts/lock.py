"""Re-makes requirements.lock from setup.py: every version and every hash, and no address of any registry.

    make lock                     # keeps the versions that are locked, where setup.py still allows them
    make lock ARGS=--upgrade      # takes the newest that setup.py allows

The lock has two parts, parted by the line `EXTRAS` below: what the package needs at run time, Kubeflow's included (and
pip, setuptools and wheel, which build the few packages that come as source), then what only the other extras add. It
serves Linux on x86_64 and aarch64 with glibc 2.28 or newer (Debian 10, Ubuntu 20.04).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = "# Every package that tfdpgen is run and tested with, pinned by hash. Made by `make lock`; do not edit."
EXTRAS = "# ---- extras: not needed at run time ----"
BUILD = "pip\nsetuptools\nwheel\n"
SOURCE_ONLY = ("kfp", "kfp-server-api", "promise")  # pure Python that is published without wheels


def declared(extras: bool) -> str:
    """What the installed package declares that it requires, a line each; `make` installs it anew with setup.py.

    The extra `kubeflow` counts as needed at run time, since the image is what Kubeflow runs the steps in.
    """
    requirements = [Requirement(line) for line in importlib.metadata.requires("tfdpgen") or ()]
    lines = []
    for requirement in requirements:
        if extras or requirement.marker is None or requirement.marker.evaluate({"extra": "kubeflow"}):
            requirement.marker = None
            lines.append(str(requirement))
    return "\n".join(lines) + "\n"


def resolve(machine: str, *options: str, extras: bool) -> dict[str, str]:
    """The pinned entries for one kind of machine, each with its hashes, by package."""
    command = ["uv", "pip", "compile", "-", *options, f"--python-platform={machine}-manylinux_2_28"]
    command += ["--python-version=3.11", "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url"]
    command += ["--only-binary=:all:", *(f"--no-binary={name}" for name in SOURCE_ONLY)]
    print(f"Resolving for {machine}{' with all extras' if extras else ''}", file=sys.stderr, flush=True)
    lines = declared(extras) + BUILD
    found = subprocess.run(command, cwd=ROOT, input=lines, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {entry.split("==")[0]: entry for entry in re.findall(r"^\S+==.*(?:\n    .*)*", found, re.MULTILINE)}


def merge(x86_64: dict[str, str], aarch64: dict[str, str]) -> dict[str, str]:
    """One set of entries for both; what only one of them needs is marked so."""
    merged = {}
    for name in sorted(x86_64 | aarch64):
        if x86_64.get(name) == aarch64.get(name):
            merged[name] = x86_64[name]
            continue
        marked = [
            entry.replace(" \\", f" ; platform_machine == '{machine}' \\", 1)
            for machine, entries in (("x86_64", x86_64), ("aarch64", aarch64))
            if (entry := entries.get(name))
        ]
        merged[name] = "\n".join(marked)
    return merged


def main() -> None:
    """Resolves everything once, then finds the part of it that is needed at run time."""
    parser = argparse.ArgumentParser(description="Re-makes requirements.lock from setup.py.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that setup.py allows")
    keep = LOCK.exists() and not parser.parse_args().upgrade
    options = [f"--constraints={LOCK}"] if keep else []
    everything, run_time = {}, {}
    for machine in ("x86_64", "aarch64"):
        everything[machine] = resolve(machine, *options, extras=True)
        run_time[machine] = everything[machine].keys() & resolve(machine, *options, extras=False).keys()
    needed = set().union(*run_time.values())
    merged = merge(everything["x86_64"], everything["aarch64"])
    parts = [entry for name, entry in merged.items() if name in needed]
    extras = [entry for name, entry in merged.items() if name not in needed]
    LOCK.write_text("\n".join([HEADER, *parts, EXTRAS, *extras]) + "\n")
    print(f"{LOCK.name}: {len(parts)} packages, and {len(extras)} more for the extras.", file=sys.stderr)


if __name__ == "__main__":
    main()
