"""The only place that turns private records into something releasable."""

from tfdpgen.privacy.accounting import Mechanism, PrivacyStatement, compose, epsilon_of
from tfdpgen.privacy.backup import Backup, BackupError
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.counts import NoisyCounts
from tfdpgen.privacy.ledger import BudgetExceededError, Ledger, Reservation, dataset_id, read_ledger
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.noise import ExampleRandomness, NoiseSource
from tfdpgen.privacy.optimizer import DPKerasAdam, DPKerasAdamW, DPKerasSGD
from tfdpgen.privacy.sampling import PoissonBatch
from tfdpgen.privacy.statistics import ClassCentres, ClassMeans, ClassMoments

__all__ = [
    "DPSGD",
    "Backup",
    "BackupError",
    "BudgetExceededError",
    "ClassCentres",
    "ClassMeans",
    "ClassMoments",
    "DPKerasAdam",
    "DPKerasAdamW",
    "DPKerasSGD",
    "ExampleRandomness",
    "Ledger",
    "Mechanism",
    "NoiseSource",
    "NoisyCounts",
    "PoissonBatch",
    "PrivacyBudget",
    "PrivacyStatement",
    "Reservation",
    "compose",
    "dataset_id",
    "epsilon_of",
    "read_ledger",
]
