"""How much of the private examples shows: attacks on a release, and what turns their scores into numbers.

`ATTACKS` holds every attack by name. Nothing is imported before it is used, so that a command line can refuse a flag at
once.
"""

from typing import TYPE_CHECKING

from tfdpgen.lazy import lazy_names

if TYPE_CHECKING:
    from tfdpgen.attacks.base import (
        Attack,
        Knowledge,
        ReleaseLike,
        RunTasks,
        Scorer,
        Task,
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
    from tfdpgen.attacks.memorisation import Memorisation, measure_memorisation
    from tfdpgen.attacks.monte_carlo import MONTE_CARLO
    from tfdpgen.attacks.reconstruction import VAE_ELBO, VAE_RECONSTRUCTION
    from tfdpgen.attacks.results import (
        AttackResult,
        Roc,
        StrongestAttack,
        compare_scores,
        strongest_attack,
    )
    from tfdpgen.attacks.running import ATTACKS, draw_synthetic, get, run_attacks
    from tfdpgen.attacks.upper_bounds import auc_upper_bound, privacy_loss_upper_bound, tpr_upper_bound, upper_bounds_of
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "base": ("Attack", "Knowledge", "ReleaseLike", "RunTasks", "Scorer", "Task", "register", "run_here"),
            "classifier": ("CLASSIFIER_HOLDOUT", "CLASSIFIER_NOISE"),
            "critic_gradient": ("CRITIC_GRADIENT",),
            "critic_neighbours": ("CRITIC_NEIGHBOURS",),
            "domias": ("DOMIAS",),
            "gan_leaks": ("GAN_LEAKS", "GAN_LEAKS_CALIBRATED"),
            "lira": ("ShadowConfig", "lira_scores", "run_shadow_attacks"),
            "logan": ("LOGAN",),
            "memorisation": ("Memorisation", "measure_memorisation"),
            "monte_carlo": ("MONTE_CARLO",),
            "reconstruction": ("VAE_ELBO", "VAE_RECONSTRUCTION"),
            "results": ("AttackResult", "Roc", "StrongestAttack", "compare_scores", "strongest_attack"),
            "running": ("ATTACKS", "draw_synthetic", "get", "run_attacks"),
            "upper_bounds": ("auc_upper_bound", "privacy_loss_upper_bound", "tpr_upper_bound", "upper_bounds_of"),
        },
    )

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
    "measure_memorisation",
    "privacy_loss_upper_bound",
    "register",
    "run_attacks",
    "run_here",
    "run_shadow_attacks",
    "strongest_attack",
    "tpr_upper_bound",
    "upper_bounds_of",
]
