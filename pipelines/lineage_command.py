"""Where something comes from, and what was made of it: `tfdpgen lineage`.

    tfdpgen lineage output/public/serving_model/1     # back to its training, plan and data, and forward
    tfdpgen lineage internal/train/release            # an artifact's folder
    tfdpgen lineage copy/synthetic --json             # a copy, by its content

What it prints is internal: it names private data sets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import HEADER
from components.component import WHERE
from pipelines.config import default_index

if TYPE_CHECKING:
    from pipelines.lineage import Lineage, Node


def main(arguments: Sequence[str], program: str = "python -m pipelines.lineage_command") -> int:
    """Prints the lineage of one thing; returns the exit status: 2 where nothing is known of it."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Shows what something was made of, and what was made of it.",
        epilog="Runs record what they make in an index beside the ledger of this user account.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "artifact", help="a run's folder, a file or folder that a run has made, wherever it lies now, or an id"
    )
    parser.add_argument("--index", default="", help="file of the index (default: this user's own)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    flags = parser.parse_args(arguments)

    from components.component import quiet_start

    quiet_start()
    from pipelines.lineage import Lineage, UnknownArtifactError

    try:
        index = Lineage(flags.index or default_index(), create=False)
        node, part = index.find(flags.artifact)
    except (OSError, UnknownArtifactError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    if flags.json:
        print(json.dumps({"part": part, **_tree(index, node), "used_in": _forward(index, node)}, indent=2))
    else:
        print("\n".join([*_back_lines(index, node, part), *_forward_lines(index, node)]))
    return 0


def _back_lines(index: Lineage, node: Node, part: str) -> list[str]:
    """The artifact and all that it was made of, each once, nearer ones first."""
    lines, seen, waiting = [], {node.id}, [("", node)]
    while waiting:
        called, one = waiting.pop(0)
        head = f"{called}: {one.type}" if called else f"{part} of a {one.type}" if part else one.type
        lines += [f"{head} {one.id[:12]}", f"  made by {one.component}, tfdpgen {one.version}{_run(one)}"]
        if one.type == "TrainedRelease":
            lines += [f"  {line}" for line in _promise(one)]
        if one.type == "PrivateNetworks":
            lines += [f"  {line}" for line in _paid(one)]
        if one.type == "PrivateExamples":
            counts = one.facts.get("num_examples", {})
            lines.append(f"  of {one.facts.get('source', '?')}: {counts.get('train', '?')} training examples")
        settings = {
            name: value for name, value in one.parameters.items() if name not in WHERE and value not in ("", False)
        }
        lines.append(f"  with {', '.join(f'{name}={value}' for name, value in settings.items()) or 'no settings'}")
        if one.path:
            lines.append(f"  in {one.path}{'' if _is_there(one) else ' (no longer there)'}")
        sources = dict(sorted(index.made_of(one).items(), key=lambda source: source[0] != "release"))  # it comes first
        if sources:
            lines.append(f"  made of {', '.join(f'{name} {source.id[:12]}' for name, source in sources.items())}")
        for name, source in sources.items():
            if source.id not in seen:
                seen.add(source.id)
                waiting.append((name, source))
    return lines


def _forward_lines(index: Lineage, node: Node) -> list[str]:
    """What was made of the artifact."""
    users = index.used_in(node)
    lines = ["", "Used in:" if users else "Nothing was made of it."]
    for user in users:
        lines.append(f"  {user.type} {user.id[:12]}, made by {user.component}{_run(user)}")
        lines += [f"    put at {name}" for name in index.copies(user)]
    return lines


def _is_there(node: Node) -> bool:
    """Whether the artifact lies where it was recorded, and no other."""
    try:
        return json.loads((Path(node.path) / HEADER).read_text())["id"] == node.id
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _run(node: Node) -> str:
    return f", run {node.run}" if node.run else ""


def _promise(node: Node) -> list[str]:
    """The promise and the plan of a release."""
    privacy = node.facts.get("privacy")
    if not privacy:
        return []
    things = "users" if str(privacy["unit"]).startswith("one user") else "examples"
    lines = [
        f"epsilon {privacy['epsilon']:.4g} at delta {privacy['delta']:g} for each of {privacy['num_examples']} "
        f"{things}; noise from the {privacy['noise_source']}"
    ]
    return lines + [f"plan: {part['name']}, epsilon {part['epsilon']:.4g} alone" for part in privacy["plan"]]


def _paid(node: Node) -> list[str]:
    """What the training was reserved as, and what all runs had come to with it."""
    ledger = node.facts.get("ledger")
    if not ledger:
        return []
    lines = [f"reserved in the ledger as {ledger['reservation'] or 'a training without a backup'}"]
    return lines + [
        f"account {account['name']!r} had come to {account['spent']:.4g} of {account['total']['epsilon']:g} with it, "
        f"in {account['runs']} run{'s' * (account['runs'] != 1)}"
        for account in ledger["accounts"]
    ]


def _tree(index: Lineage, node: Node) -> dict[str, Any]:
    """The artifact and all that it was made of, JSON-ready."""
    made_of = {name: _tree(index, source) for name, source in index.made_of(node).items()}
    return {**node._asdict(), "made_of": made_of}


def _forward(index: Lineage, node: Node) -> list[dict[str, Any]]:
    """What was made of the artifact, JSON-ready."""
    return [{**user._asdict(), "copies": index.copies(user)} for user in index.used_in(node)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
