"""The only place that turns private examples into something releasable.

A name is imported when it is first used: `from tfdpgen.privacy import Ledger` imports no TensorFlow.
"""

from typing import TYPE_CHECKING

from tfdpgen.lazy import lazy_names

if TYPE_CHECKING:
    from tfdpgen.privacy.accounting import Mechanism, PrivacyStatement, compose, epsilon_of
    from tfdpgen.privacy.accounts.identity import Identity
    from tfdpgen.privacy.backup import Backup, BackupError
    from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
    from tfdpgen.privacy.ledger import (
        BudgetExceededError,
        Ledger,
        LedgerError,
        Reservation,
        Standing,
        TamperedError,
        dataset_id,
    )
    from tfdpgen.privacy.mechanisms.base import GaussianSum
    from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
    from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage
    from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans, GroupStatistics
    from tfdpgen.privacy.mechanisms.noisy_counts import LabelCounts, NoisyCounts
    from tfdpgen.privacy.mechanisms.sanitised_gradient import SanitisedGradient
    from tfdpgen.privacy.mechanisms.votes import Votes
    from tfdpgen.privacy.noise import ExampleRandomness, NoiseSource
    from tfdpgen.privacy.optimizer import DPKerasAdam, DPKerasAdamW, DPKerasSGD
    from tfdpgen.privacy.plan import PrivacyPlan, Shards
    from tfdpgen.privacy.sampling import PoissonBatch
    from tfdpgen.privacy.session import PlanError, PrivateSession
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "accounting": ("Mechanism", "PrivacyStatement", "compose", "epsilon_of"),
            "backup": ("Backup", "BackupError"),
            "budget": ("PrivacyBudget", "PrivacyUnit"),
            "accounts.identity": ("Identity",),
            "ledger": (
                "BudgetExceededError",
                "Ledger",
                "LedgerError",
                "Reservation",
                "Standing",
                "TamperedError",
                "dataset_id",
            ),
            "mechanisms.base": ("GaussianSum",),
            "mechanisms.dp_sgd": ("DPSGD",),
            "mechanisms.federated_average": ("FederatedAverage",),
            "mechanisms.gaussian_statistics": ("ClassMeans", "GroupStatistics"),
            "mechanisms.noisy_counts": ("LabelCounts", "NoisyCounts"),
            "mechanisms.sanitised_gradient": ("SanitisedGradient",),
            "mechanisms.votes": ("Votes",),
            "noise": ("ExampleRandomness", "NoiseSource"),
            "optimizer": ("DPKerasAdam", "DPKerasAdamW", "DPKerasSGD"),
            "plan": ("PrivacyPlan", "Shards"),
            "sampling": ("PoissonBatch",),
            "session": ("PlanError", "PrivateSession"),
        },
    )

__all__ = [
    "DPSGD",
    "Backup",
    "BackupError",
    "BudgetExceededError",
    "ClassMeans",
    "DPKerasAdam",
    "DPKerasAdamW",
    "DPKerasSGD",
    "ExampleRandomness",
    "FederatedAverage",
    "GaussianSum",
    "GroupStatistics",
    "Identity",
    "LabelCounts",
    "Ledger",
    "LedgerError",
    "Mechanism",
    "NoiseSource",
    "NoisyCounts",
    "PlanError",
    "PoissonBatch",
    "PrivacyBudget",
    "PrivacyPlan",
    "PrivacyStatement",
    "PrivacyUnit",
    "PrivateSession",
    "Reservation",
    "SanitisedGradient",
    "Shards",
    "Standing",
    "TamperedError",
    "Votes",
    "compose",
    "dataset_id",
    "epsilon_of",
]
