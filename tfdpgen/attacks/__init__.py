"""How much of the private rows shows: attacks on a release, and audits that turn their scores into numbers.

Importing this package registers every attack in `ATTACKS`.
"""

from tfdpgen.attacks.base import ATTACKS, Attack, ReleaseLike, get, register
from tfdpgen.attacks.classifier import CLASSIFIER_HOLDOUT, CLASSIFIER_NOISE, classifier_scores
from tfdpgen.attacks.results import AttackResult, compare_scores, privacy_loss_cap, run_attacks

__all__ = [
    "ATTACKS",
    "CLASSIFIER_HOLDOUT",
    "CLASSIFIER_NOISE",
    "Attack",
    "AttackResult",
    "ReleaseLike",
    "classifier_scores",
    "compare_scores",
    "get",
    "privacy_loss_cap",
    "register",
    "run_attacks",
]
