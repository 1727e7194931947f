"""From a description of what ran to what it cost, and back.

    python -m tfdpgen.privacy.accounting --help

Mechanisms are data, accounting is functions on them: `events` says what ran, `epsilon` what it costs (`replace_one`
where an example is replaced), `calibration` finds the plan that a budget allows, `statement` is the promise in words.
"""

from tfdpgen.privacy.accounting.calibration import (
    calibrate_batch_size,
    calibrate_noise_multiplier,
    calibrate_steps,
)
from tfdpgen.privacy.accounting.epsilon import (
    NEIGHBORING_RELATIONS,
    NeighboringRelation,
    check_accountant,
    check_neighboring_relation,
    epsilon_of,
)
from tfdpgen.privacy.accounting.events import (
    Mechanism,
    ReplaceOneDpEvent,
    compose,
    event_from_dict,
    event_to_dict,
    group_event,
    poisson_gaussian_event,
)
from tfdpgen.privacy.accounting.statement import (
    ASSUMPTIONS,
    OPERATING_SYSTEM,
    PrivacyStatement,
    make_statement,
    tensorflow_privacy_epsilon,
)

__all__ = [
    "ASSUMPTIONS",
    "NEIGHBORING_RELATIONS",
    "OPERATING_SYSTEM",
    "Mechanism",
    "NeighboringRelation",
    "PrivacyStatement",
    "ReplaceOneDpEvent",
    "calibrate_batch_size",
    "calibrate_noise_multiplier",
    "calibrate_steps",
    "check_accountant",
    "check_neighboring_relation",
    "compose",
    "epsilon_of",
    "event_from_dict",
    "event_to_dict",
    "group_event",
    "make_statement",
    "poisson_gaussian_event",
    "tensorflow_privacy_epsilon",
]
