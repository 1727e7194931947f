"""The synthesis pipeline: private examples in; synthetic examples, a served generator and an honest report out.

    ingest ──> preflight ──> train ──> generate ──> attack ──> evaluate ──> audit ──> publish

Each step waits for the one before it, also where it reads nothing of it, so that a run tells one story. Declared
once, for every place that can run it.
"""

from __future__ import annotations

from components.attack import attack
from components.audit import audit
from components.evaluate import evaluate
from components.generate import generate
from components.ingest import ingest
from components.preflight import preflight
from components.publish import publish
from components.train import train
from pipelines.config import SynthesisConfig
from pipelines.dag import Field, Pipeline

SYNTHESIS = Pipeline("tfdpgen-synthesis", SynthesisConfig)

_ingest = SYNTHESIS.add(ingest)
_preflight = SYNTHESIS.add(preflight, examples=_ingest["examples"])
_train = SYNTHESIS.add(train, after=[_preflight], examples=_ingest["examples"])
_generate = SYNTHESIS.add(generate, release=_train["release"])
_attack = SYNTHESIS.add(
    attack,
    examples=_ingest["examples"],
    release=_train["release"],
    networks=_train["networks"],
    synthetic=_generate["synthetic"],
    repetitions=Field("attack_repetitions"),
    num_candidates=Field("attack_candidates"),
    shadow_models=Field("attack_shadow_models"),
    shadow_processes=Field("attack_shadow_processes"),
    shadow_folder=Field("attack_shadow_folder"),
)
_evaluate = SYNTHESIS.add(
    evaluate,
    after=[_attack],
    examples=_ingest["examples"],
    synthetic=_generate["synthetic"],
)
_audit = SYNTHESIS.add(
    audit,
    after=[_evaluate],
    examples=_ingest["examples"],
    canaries=Field("audit_canaries"),
    adversary=Field("audit_adversary"),
)
_publish = SYNTHESIS.add(
    publish,
    release=_train["release"],
    synthetic=_generate["synthetic"],
    attacks=_attack["attacks"],
    utility=_evaluate["utility"],
    audited=_audit["audited"],
    destination=Field("output_dir"),
)
