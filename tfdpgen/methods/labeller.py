"""The labeller of methods that do not train in a `PrivateSession` of their own: one is opened for it alone.

preset = LabellerPreset()
plan = labeller_plan(preset, len(dataset)).calibrate(PrivacyBudget(0.5, 1e-5))    # a mechanism of its own
labeller = train_labeller(dataset, plan, NoiseSource())
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfdpgen.data.dataset import Dataset
from tfdpgen.privacy import DPSGD, NoiseSource, PrivacyBudget
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession
from tfdpgen.release import Labeller, labeller_mechanism, prepare_labeller


@dataclasses.dataclass(frozen=True)
class LabellerPreset:
    """Hyperparameters of a labeller's training.

    Attributes:
      expected_batch_size: at most; all examples where there are fewer.
      steps: of DP-SGD.
    """

    expected_batch_size: int = 8192
    steps: int = 300


def labeller_plan(preset: LabellerPreset, num_examples: int) -> DPSGD:
    """The mechanism, without its noise."""
    batch = min(preset.expected_batch_size, num_examples)
    return dataclasses.replace(labeller_mechanism(num_examples), expected_batch_size=batch, steps=preset.steps)


def train_labeller(dataset: Dataset, plan: DPSGD, noise: NoiseSource, verbose: int = 0) -> Labeller:
    """Runs the mechanism, once; whoever calls this has reserved its cost.

    Args:
      dataset: the private examples.
      plan: from `labeller_plan`, calibrated.
      noise: where samples and noise come from.
      verbose: 1 shows a progress bar, without private figures.
    """
    delta = 0.5 / len(dataset)
    mechanisms: Any = {"labeller": plan}
    alone = PrivacyPlan(mechanisms, len(dataset), accountant=plan.accountant)
    session = PrivateSession(dataset, alone, PrivacyBudget(alone.epsilon(delta), delta), noise=noise)
    return prepare_labeller(session).run(verbose)
