"""Which moments of private rows a budget buys: centres, Gaussians of classes or of components, and what is asked first.

    plan = MomentsPlan(preset, spec, num_examples, num_features=150, num_poses=3)
    mechanisms = plan.mechanisms(PrivacyBudget(1.0, 1e-5))       # ClassCentres, NoisyCounts, ClassMoments
    plan.is_outweighed(mechanisms)                               # whether their noise outweighs rows

Every decision is one of public facts: shape, number of classes and rows, preset, budget. So what runs is fixed, and
accounted, before any row is seen. The Gaussian mechanisms divide the precision of a single one: those of noise
multipliers a and b are one of c, with 1 / c^2 = 1 / a^2 + 1 / b^2 (Dong, Roth & Su 2022, "Gaussian differential
privacy", section 3). What the releases are used for is said in `c_vae.py`, how shares were chosen in docs/utility.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfdpgen.data.dataset import DataSpec
from tfdpgen.methods.c_vae_preset import CVAEPreset
from tfdpgen.privacy import ClassCentres, ClassMoments, Mechanism, NoisyCounts, PrivacyBudget
from tfdpgen.privacy.accounting import calibrate_noise_multiplier

COMPONENTS = "moments of components"
ROUGH = "moments of rough components, or of classes again"
CENTRE_OF_ALL, CENTRES_OF_CLASSES = "centre of all rows", "centres of classes"
CENTRES = {1.0: "centres of classes with poses", 0.0: "centres of classes without poses"}
NEAR_CENTRES = "rows nearest to their own class"
NEAR_COMPONENTS = "rows nearest to their own class, and to a component of it"
_COUNT_SHARE = 0.005  # of the moments' precision (1 / noise multiplier ^ 2), that buys the counts of rows
_CENTRE_SHARE = 0.05  # of the moments' precision, that buys the classes' centres
_ROUGH_SHARE = 0.15  # of the moments' precision, that buys the classes' Gaussians where components are rough
_SQUARE_WEIGHT = 4.0  # of what is measured from centres: means are known by then
ROWS_IN_COMPONENT = 6.5  # for each feature and unit of noise multiplier: fewer, and noise outweighs the shape
_ROWS_IN_ROUGH_COMPONENT = 4.5  # likewise: fewer, and there are fewer features, but no fewer than
_ROUGH_FEATURES = 60
_FEW_ROWS = 10  # of a class, for each feature: with more, one component in all features may be as good as rough ones
_ROWS_IN_CLASS = 8  # likewise: fewer, and no rough components, and images are drawn closer to what is usual, and moved
_ROWS_TO_ASK = 250  # of a class, for each unit of noise multiplier: fewer, and centres do not tell of poses
_ROWS_TO_COUNT = 2500  # of all classes, likewise: fewer, and counts do not

_Gaussian = ClassCentres | ClassMoments | NoisyCounts


@dataclasses.dataclass(frozen=True)
class MomentsPlan:
    """What is released of the features of rows, by public facts.

    Attributes:
      preset: of the C-VAE that the moments are for.
      spec: public facts of the data.
      num_examples: number of private rows.
      num_features: that describe a row, poses among them.
      num_poses: how many of these are its pose.
    """

    preset: CVAEPreset
    spec: DataSpec
    num_examples: int
    num_features: int
    num_poses: int

    @property
    def num_noisy_features(self) -> int:
        """Of how many features, the first ones, moments are released where noise outweighs rows."""
        waves = (self.preset.noisy_waves or self.preset.num_waves) * self.spec.image_shape[2]
        return min(self.num_features, self.num_poses + waves)

    @property
    def are_few(self) -> bool:
        """Whether rows are so few that rough components are told without asking them."""
        return self.num_examples < self.spec.num_classes * _FEW_ROWS * self.num_features

    @property
    def num_rough(self) -> int:
        """How many rough components a class has, where there are any."""
        return min(self.preset.components, self.preset.rough_components)

    def mechanisms(self, budget: PrivacyBudget) -> Sequence[_Gaussian]:
        """What is asked of the rows, centres and moments, that together cost this budget."""
        preset = self.preset
        precision = self._precision(budget)
        asked = self._question(precision)
        rest = precision - sum(part.noise_multiplier**-2 for part in asked)
        is_noisy = self.is_noisy(rest**-0.5)
        if not asked:
            asked = (self._centres_for(rest, CENTRE_OF_ALL if is_noisy else CENTRES_OF_CLASSES),)
            rest *= 1 - _CENTRE_SHARE
        if is_noisy:
            return (*asked, ClassMoments(rest**-0.5, preset.noisy_reach))
        first = rest * self._precision(dataclasses.replace(budget, epsilon=budget.epsilon * preset.first_share))
        first /= precision
        # Features are measured in units of the usual distance from their centres.
        name, between = COMPONENTS, ()
        if self.num_components((rest - first) ** -0.5) == 1:
            if not self.may_be_rough():
                return (*asked, ClassMoments(rest**-0.5, preset.reach, _SQUARE_WEIGHT))
            if not self.are_few:
                between = (NoisyCounts((rest * _COUNT_SHARE) ** -0.5, 2, name=NEAR_COMPONENTS),)
                rest *= 1 - _COUNT_SHARE
            name, first = ROUGH, _ROUGH_SHARE * rest
        return (
            *asked,
            ClassMoments(first**-0.5, preset.reach, _SQUARE_WEIGHT),
            *between,
            ClassMoments((rest - first) ** -0.5, preset.reach, _SQUARE_WEIGHT, name=name),
        )

    def num_components(self, noise_multiplier: float) -> int:
        """How many components of a class moments with that noise can tell."""
        needed = ROWS_IN_COMPONENT * self.num_features * noise_multiplier
        return max(1, min(self.preset.components, int(self.num_examples / (self.spec.num_classes * needed))))

    def is_outweighed(self, mechanisms: Sequence[Mechanism]) -> bool:
        """Whether the noise of these outweighs rows."""
        asked = (*CENTRES.values(), NEAR_CENTRES)
        return self.is_noisy(noise_of([part for part in mechanisms if part.name not in asked]))

    def is_noisy(self, noise_multiplier: float) -> bool:
        """Whether the noise of the moments outweighs rows."""
        needed = _ROWS_IN_CLASS * self.num_noisy_features * noise_multiplier
        is_rough = self.are_few and self.may_be_rough() and self.num_rough_features(noise_multiplier) >= _ROUGH_FEATURES
        return self.num_examples < self.spec.num_classes * needed and not is_rough

    def may_be_rough(self) -> bool:
        """Whether there are rough components where the noise is right for them and rows do not say otherwise."""
        return self.num_rough > 1 and not self.preset.has_poses

    def num_rough_features(self, noise_multiplier: float) -> int:
        """How many features rough components are told in."""
        needed = self.spec.num_classes * self.num_rough * _ROWS_IN_ROUGH_COMPONENT * noise_multiplier
        return max(1, min(self.num_noisy_features, int(self.num_examples / needed)))

    def _precision(self, budget: PrivacyBudget) -> float:
        """1 / noise multiplier squared of the one Gaussian mechanism that costs this much."""
        return calibrate_noise_multiplier(lambda z: ClassMoments(z, 1.0).event, budget) ** -2

    def _centres_for(self, precision: float, name: str) -> ClassCentres:
        """What releases centres for their share of this precision."""
        radius = self.preset.centre_radius * math.sqrt(math.prod(self.spec.image_shape))
        return ClassCentres((precision * _CENTRE_SHARE) ** -0.5, radius, name)

    def _question(self, precision: float) -> tuple[ClassCentres | NoisyCounts, ...]:
        """What asks the rows whether poses suit, of moments with that precision; public facts decide if it is asked."""
        needed = max(self.spec.num_classes * _ROWS_TO_ASK, _ROWS_TO_COUNT) * precision**-0.5
        if self.preset.has_poses is not None or self.num_examples < needed:
            return ()
        centres = (self._centres_for(precision, name) for name in CENTRES.values())
        return (
            *centres,
            NoisyCounts((precision * _COUNT_SHARE) ** -0.5, len(CENTRES), name=NEAR_CENTRES),
        )


def statistics_of(mechanisms: Sequence[Mechanism]) -> list[ClassCentres | ClassMoments]:
    """Those that moments come from, without the question about poses."""
    return [
        part
        for part in mechanisms
        if isinstance(part, ClassMoments | ClassCentres) and part.name not in CENTRES.values()
    ]


def noise_of(mechanisms: Sequence[Mechanism]) -> float:
    """The noise multiplier of the one Gaussian mechanism that costs as much as these."""
    multipliers = (part.noise_multiplier for part in mechanisms if isinstance(part, _Gaussian))
    return sum(multiplier**-2 for multiplier in multipliers) ** -0.5
