"""Publish: puts the results together and, as TFX's Pusher does, pushes them to a folder.

    python -m components.publish --release=DIR --synthetic=DIR --attacks=DIR --utility=DIR --audited=DIR \
        --publication=DIR --destination=output

It sees no private example. The destination receives public/, with all that may be published and nothing else:
synthetic/, serving_model/<next version>/, report_public.html and privacy.json; then report.html and, last of all,
summary.json, which hold internal metrics and are for their owner alone. Where the last is, everything beside it is
complete and belongs together. A release that may not leave goes to not_for_release/ instead. What an earlier run has
written there is replaced, and nothing else (`destination.py`).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import time
from pathlib import Path
from typing import Annotated

import numpy as np

from components.artifacts import (
    HEADER,
    ArtifactError,
    AttackMetrics,
    AuditMetrics,
    Input,
    Output,
    Publication,
    SyntheticExamples,
    TrainedRelease,
    UtilityMetrics,
    digest_of,
)
from components.component import beside, component
from components.destination import KEPT, PUBLIC, RESULTS, check_destination, replacing
from tfdpgen.files import folder_lock, fsync, fsync_tree, remove, replace

SAMPLES_PER_CLASS = 10  # that the report shows
TEMPERATURES = (0.5, 0.75, 1.0, 1.25, 1.5)  # that it compares
_MORE_OF_UNEVEN = 20  # times as many are looked through for them where classes have shares of their own

# The keys of the summary that are computed on private examples without noise; what an account has come to hangs on
# which examples were in other runs.
INTERNAL = ("utility", "fidelity", "attacks", "strongest_attack", "memorisation", "audit", "ledger")
PACKAGES = (
    "tfdpgen",
    "tensorflow",
    "tensorflow-privacy",
    "dp-accounting",
    "tensorflow-datasets",
    "apache-beam",
    "numpy",
)


@beside(writes=lambda *, publication, destination, **_: is_pushed(publication.path, destination))
@component
def publish(
    release: Input[TrainedRelease],
    synthetic: Input[SyntheticExamples],
    attacks: Input[AttackMetrics],
    utility: Input[UtilityMetrics],
    audited: Input[AuditMetrics],
    publication: Output[Publication],
    *,
    destination: Annotated[str, "folder that receives the results; empty: they stay in the publication alone"] = "",
) -> None:
    """Writes summary, report, synthetic data set and served generator, and pushes them to a folder."""
    from tfdpgen.release import Release, export_saved_model
    from tfdpgen.report import public_part, write_report

    started = time.monotonic()
    examples = release.made_of("examples")
    ids = {"examples": examples["id"], "release": release.id, "synthetic": synthetic.id}
    for artifact in (synthetic, attacks, utility, audited):
        for name, made_of in artifact.inputs.items():
            if name in ids and made_of["id"] != ids[name]:
                raise ArtifactError(f"{artifact.path} was made of another `{name}` than the rest; make it anew.")

    trained = Release.load(release.path)
    target = Path(destination) if destination else None
    public = publication.path / (PUBLIC if trained.is_releasable else KEPT)
    export_saved_model(trained, public / "serving_model" / str(_next_version(target, public.name)))
    (public / "synthetic").mkdir()
    for file in synthetic.path.iterdir():
        if file.name != HEADER:
            shutil.copyfile(file, public / "synthetic" / file.name)
    attacked = json.loads((attacks.path / "attacks.json").read_text())
    audit = json.loads((audited.path / "audit.json").read_text())
    sources = (examples, release.header, synthetic.header, attacks.header, utility.header, audited.header)
    optional = {"audit": audit, "ledger": attacks.made_of("networks")["facts"].get("ledger")}
    summary = {
        "dataset": examples["facts"]["dataset"],
        "method": trained.method,
        "num_examples": trained.statement.num_examples,
        "num_synthetic": synthetic.facts["num_synthetic"],
        "label_distribution": trained.label_distribution,
        "privacy": trained.statement.to_dict(),
        "utility": json.loads((utility.path / "utility.json").read_text()),
        "fidelity": json.loads((utility.path / "fidelity.json").read_text()),
        "attacks": attacked["attacks"],
        "strongest_attack": attacked["strongest"],
        "attack_upper_bounds": attacked["upper_bounds"],
        "memorisation": attacked["memorisation"],
        **{name: found for name, found in optional.items() if found},
        "release": trained.is_releasable,
        "internal": [name for name in INTERNAL if optional.get(name, True)],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "seconds": {source["component"]: source["seconds"] for source in sources},
    }
    if (published := utility.path / "published_metrics.json").exists():
        summary["published_metrics"] = json.loads(published.read_text())
    summary["seconds"]["publish"] = round(time.monotonic() - started, 3)
    shown = SAMPLES_PER_CLASS * trained.spec.num_classes  # labels cycle through the classes
    if trained.label_distribution is not None:
        shown *= _MORE_OF_UNEVEN  # so that rare classes are among them
    labels = np.arange(min(SAMPLES_PER_CLASS, trained.spec.num_classes))
    for page in (publication.path / "report.html", public / "report_public.html"):
        write_report(
            page,
            summary,
            synthetic.load(shown),
            samples_per_class=SAMPLES_PER_CLASS,
            temperatures={each: trained.sample(labels, 0, each) for each in TEMPERATURES},
            public=page.parent == public,
        )
    (public / "privacy.json").write_text(json.dumps(public_part(summary), indent=2) + "\n")
    (publication.path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    for name in ("report.html", "summary.json"):
        (publication.path / name).chmod(0o600)
    if target:
        push(publication.path, target)


def is_pushed(source: Path, destination: str) -> bool:
    """Whether everything that `push` would copy is there, unchanged, or nothing is to be copied."""
    if not destination:
        return True
    names = [name for name in RESULTS if (source / name).exists()]
    names += [version.relative_to(source).as_posix() for version in source.glob("*/serving_model/*")]
    places = [(source / name, Path(destination) / name) for name in names]
    return all(copy.exists() and digest_of(made) == digest_of(copy) for made, copy in places)


def push(source: Path, destination: Path) -> None:
    """Copies what is in `source` beside its places in `destination` and renames it into them, summary.json last.

    A new version joins the others in serving_model/; everything else replaces what an earlier run has written.

    Raises:
      DestinationError: if something else is in the way; nothing is changed then.
    """
    check_destination(destination)
    destination.mkdir(parents=True, exist_ok=True)
    staging, old = destination / ".publish.part", destination / ".publish.old"
    with folder_lock(staging):
        for leftover in (*staging.iterdir(), old):
            remove(leftover)
        shutil.copytree(source, staging, dirs_exist_ok=True)
        fsync_tree(staging)
        with replacing(destination, staging):
            remove(destination / "summary.json")  # it would describe what is about to be replaced
            for version in staging.glob("*/serving_model/*"):
                served = destination / version.parent.relative_to(staging)
                served.mkdir(parents=True, exist_ok=True)
                version.rename(served / version.name)
                fsync(served)
            for name in RESULTS:
                if (staging / name).exists():
                    (destination / name).parent.mkdir(exist_ok=True)
                    replace(staging / name, destination / name, old)
                else:
                    remove(destination / name)
        remove(staging)


def _next_version(destination: Path | None, folder: str) -> int:
    """One more than the highest version in the serving_model/ of that folder of the destination."""
    served = destination.glob(f"{folder}/serving_model/*") if destination else ()
    return 1 + max((int(folder.name) for folder in served if folder.name.isdecimal()), default=0)


def _version(package: str) -> str:
    """The version of a package; "not installed" where it runs from a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    publish.main()
