"""From a description of what ran to what it cost, and back.

    python -m tfdpgen.privacy.accounting --help

Mechanisms are data, accounting is functions on them: `events` says what ran and what it costs, `calibration` finds the
plan that a budget allows, `statement` is the promise in words.
"""

from tfdpgen.privacy.accounting.calibration import (
    calibrate_batch_size,
    calibrate_noise_multiplier,
    calibrate_steps,
)
from tfdpgen.privacy.accounting.events import (
    Mechanism,
    check_accountant,
    compose,
    epsilon_of,
    event_from_dict,
    event_to_dict,
    poisson_gaussian_event,
)
from tfdpgen.privacy.accounting.statement import (
    ASSUMPTIONS,
    OPERATING_SYSTEM,
    PrivacyStatement,
    tensorflow_privacy_figures,
)

__all__ = [
    "ASSUMPTIONS",
    "OPERATING_SYSTEM",
    "Mechanism",
    "PrivacyStatement",
    "calibrate_batch_size",
    "calibrate_noise_multiplier",
    "calibrate_steps",
    "check_accountant",
    "compose",
    "epsilon_of",
    "event_from_dict",
    "event_to_dict",
    "poisson_gaussian_event",
    "tensorflow_privacy_figures",
]
