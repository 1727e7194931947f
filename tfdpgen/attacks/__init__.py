"""How much of the private examples shows: attacks on a release, and what turns their scores into numbers.

Importing this package registers every attack in `ATTACKS`.
"""

from tfdpgen.attacks.base import (
    ATTACKS,
    Attack,
    Knowledge,
    ReleaseLike,
    RunTasks,
    Scorer,
    Task,
    get,
    register,
    run_here,
)
from tfdpgen.attacks.classifier import CLASSIFIER_HOLDOUT, CLASSIFIER_NOISE
from tfdpgen.attacks.critic_gradient import CRITIC_GRADIENT
from tfdpgen.attacks.critic_neighbours import CRITIC_NEIGHBOURS
from tfdpgen.attacks.domias import DOMIAS
from tfdpgen.attacks.gan_leaks import GAN_LEAKS, GAN_LEAKS_CALIBRATED
from tfdpgen.attacks.lira import ShadowConfig, lira_scores, run_shadow_attacks
from tfdpgen.attacks.logan import LOGAN
from tfdpgen.attacks.memorisation import Memorisation, memorisation
from tfdpgen.attacks.monte_carlo import MONTE_CARLO
from tfdpgen.attacks.reconstruction import VAE_ELBO, VAE_RECONSTRUCTION
from tfdpgen.attacks.results import (
    AttackResult,
    Roc,
    StrongestAttack,
    compare_scores,
    strongest_attack,
)
from tfdpgen.attacks.running import draw_synthetic, run_attacks
from tfdpgen.attacks.upper_bounds import auc_upper_bound, privacy_loss_upper_bound, tpr_upper_bound, upper_bounds

__all__ = [
    "ATTACKS",
    "CLASSIFIER_HOLDOUT",
    "CLASSIFIER_NOISE",
    "CRITIC_GRADIENT",
    "CRITIC_NEIGHBOURS",
    "DOMIAS",
    "GAN_LEAKS",
    "GAN_LEAKS_CALIBRATED",
    "LOGAN",
    "MONTE_CARLO",
    "VAE_ELBO",
    "VAE_RECONSTRUCTION",
    "Attack",
    "AttackResult",
    "Knowledge",
    "Memorisation",
    "ReleaseLike",
    "Roc",
    "RunTasks",
    "Scorer",
    "ShadowConfig",
    "StrongestAttack",
    "Task",
    "auc_upper_bound",
    "compare_scores",
    "draw_synthetic",
    "get",
    "lira_scores",
    "memorisation",
    "privacy_loss_upper_bound",
    "register",
    "run_attacks",
    "run_here",
    "run_shadow_attacks",
    "strongest_attack",
    "tpr_upper_bound",
    "upper_bounds",
]
