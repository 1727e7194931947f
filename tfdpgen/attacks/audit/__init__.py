"""Audits: an empirical epsilon beside the claimed one.

    python -m tfdpgen.attacks.audit --help

An audit plants canaries in a training by fair coins, guesses the coins from what comes out, and concludes that epsilon
can hardly be below some bound (`bounds`). In `white_box` it sees every noised update of the optimizer, which is the
adversary of DP-SGD's analysis; in `black_box` it sees released samples only. A bound above the claim refutes the claim.
One below it proves nothing: another adversary might do better.
"""

from typing import TYPE_CHECKING

from tfdpgen.lazy import lazy_names

if TYPE_CHECKING:
    from tfdpgen.attacks.audit.black_box import audit_release, nearness_scores, random_canaries
    from tfdpgen.attacks.audit.bounds import (
        clopper_pearson_lower_bound,
        gaussian_epsilon,
        gaussian_one_run_lower_bound,
        one_run_lower_bound,
        one_run_p_value,
    )
    from tfdpgen.attacks.audit.guessing import GuessNumbers, choose_guesses, count_right, guess, privacy_loss
    from tfdpgen.attacks.audit.result import AuditResult
    from tfdpgen.attacks.audit.white_box import OPTIMIZERS, audit_optimizer, canary_plan
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "black_box": ("audit_release", "nearness_scores", "random_canaries"),
            "bounds": (
                "clopper_pearson_lower_bound",
                "gaussian_epsilon",
                "gaussian_one_run_lower_bound",
                "one_run_lower_bound",
                "one_run_p_value",
            ),
            "guessing": ("GuessNumbers", "choose_guesses", "count_right", "guess", "privacy_loss"),
            "result": ("AuditResult",),
            "white_box": ("OPTIMIZERS", "audit_optimizer", "canary_plan"),
        },
    )

__all__ = [
    "OPTIMIZERS",
    "AuditResult",
    "GuessNumbers",
    "audit_optimizer",
    "audit_release",
    "canary_plan",
    "choose_guesses",
    "clopper_pearson_lower_bound",
    "count_right",
    "gaussian_epsilon",
    "gaussian_one_run_lower_bound",
    "guess",
    "nearness_scores",
    "one_run_lower_bound",
    "one_run_p_value",
    "privacy_loss",
    "random_canaries",
]
