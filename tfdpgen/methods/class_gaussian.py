"""Class Gaussians: one Gaussian of each class, of an image's lowest frequencies, released in one go; no training.

    release = train("class_gaussian", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

The baseline that takes a second, and that every trained method has to beat. An image is described by its lowest
frequencies (the two-dimensional cosine transform, Ahmed et al. 1974), a public basis of which few axes hold most of an
image. One Gaussian mechanism releases count, mean and covariance of each class in it ("Analyze Gauss", Dwork et al.
2014, and `ClassMoments`). What a Gaussian cannot say is that strokes bend. There is no public prior.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.methods.base import Synthesizer, register
from tfdpgen.networks import vae
from tfdpgen.networks.waves import CENTRE, WaveFeatures
from tfdpgen.privacy import DPSGD, Backup, ClassMoments, Mechanism, NoiseSource, PrivacyBudget
from tfdpgen.privacy.accounting import calibrate_noise_multiplier


@dataclasses.dataclass(frozen=True)
class ClassGaussianPreset:
    """Hyperparameters, chosen by image shape and number of rows alone.

    Attributes:
      num_waves: lowest frequencies of each channel that the Gaussians are about.
      radius: bound on the root mean square of what an image differs by from a fifth of the range, in units of it.
      spread: standard deviations of the released Gaussians / those that were measured: wider ones are more diverse.
    """

    num_waves: int
    radius: float
    spread: float = 1.0


def preset_for(spec: DataSpec, num_examples: int) -> ClassGaussianPreset:
    """The preset for images of this shape and this many rows."""
    pixels = spec.image_shape[0] * spec.image_shape[1]
    if pixels <= 256:
        return ClassGaussianPreset(num_waves=min(pixels, 49), radius=0.33)
    return ClassGaussianPreset(num_waves=90, radius=0.25)


@register
class ClassGaussian(Synthesizer):
    """One Gaussian of each class; see the top of this file.

    Args:
      spec: public facts of the data.
      num_examples: number of private rows.
      seed: of nothing but later draws: there is no training.
      preset: by default the one for the spec.
    """

    method = "class_gaussian"

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: ClassGaussianPreset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or preset_for(spec, num_examples))
        self._generator: tf.keras.Model | None = None

    def plan(self) -> DPSGD | None:
        return None

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        radius = self.preset.radius * math.sqrt(math.prod(self.spec.image_shape))
        return (ClassMoments(calibrate_noise_multiplier(lambda z: ClassMoments(z, radius).event, budget), radius),)

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        for mechanism in mechanisms:
            assert isinstance(mechanism, ClassMoments)
            self._generator = self._released(dataset, mechanism, noise)

    def _released(self, dataset: Dataset, mechanism: ClassMoments, noise: NoiseSource) -> tf.keras.Model:
        """The generator: waves whose coefficients are a draw of the class's Gaussian, cut to [0, 1]."""
        features = WaveFeatures(self.spec.image_shape, self.preset.num_waves)
        blocks = _measured(dataset, features.waves)
        moments = mechanism.release(blocks, features.size, self.spec.num_classes, noise)
        gaussians = vae.class_gaussians(moments.means, moments.factors * self.preset.spread, features.size)
        return tf.keras.Model(gaussians.inputs, features.drawn(gaussians.output), name="generator")

    def learn(
        self, dataset: Dataset, plan: DPSGD | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert self._generator is not None
        return self._generator


def _measured(
    dataset: Dataset, waves: npt.NDArray[np.floating]
) -> Iterator[tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]]:
    """The waves' coefficients of all rows, measured from `CENTRE`, and their labels, block by block."""
    for images, labels in dataset.blocks():
        yield (images.reshape(len(images), -1) / 255.0 - CENTRE) @ waves, labels
