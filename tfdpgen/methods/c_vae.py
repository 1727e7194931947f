"""C-VAE: a conditional variational autoencoder that starts from private Gaussians; both halves are trained by DP-SGD.

    release = train("c_vae", dataset, PrivacyBudget(epsilon=1.0, delta=1e-5))

Statistics before gradients: what a noisy sum can say of the rows it says better than noisy steps do. An image becomes a
vector of features: its pose (`networks/poses.py`), and the lowest frequencies of what is left when the pose is taken
off. Gaussian mechanisms release count, mean and covariance of each class in them (`ClassMoments`). These make a linear
conditional VAE with its exact posterior (Kingma & Welling 2014; Sohn et al. 2015; probabilistic PCA, Tipping & Bishop
1999). They are measured from rough centres, bought with a little of the budget (`ClassCentres`): what is left of a row
is smaller, and so is the noise that hides it. Where rows outweigh the noise, there is a centre for each class; where
they do not, one for all of them, which has that much less noise. Where the noise is smaller still, each class becomes a
mixture: k-means on draws of the released Gaussians, which costs nothing, cuts every class into components, whose
moments are then released, measured from the centres of those draws; one latent variable, whose posterior is known, says
which. How many components there are follows from the number of rows and the noise. Where these allow one alone, and
poses do not suit, two rough ones may be told in the lowest frequencies. Of few rows they always are; where rows are
many, noisy counts say how many more of them are nearest to their own class if it has two centres, which draws have,
instead of one. Where poses suit, or too few rows say so, the same release measures the classes again, and they are what
both say.

Whether poses suit the data is asked of the rows, and paid for: centres of the classes are released with poses and
without, and noisy counts of the rows that are nearest to their own class's say which of the two keeps classes further
apart. Where rows are too few to tell, nothing is asked and there are no poses.

With what the budget has left, DP-SGD trains networks that correct the linear halves. The loss of a row is -ELBO, its
squared error / (2 variance) + KL(q(z | x, y) || N(0, I)), one number for each row, with the KL inside, so that one clip
bounds all that the row contributes.

No public prior: pose and frequencies are those of any image. Where noise outweighs rows, drawn images are moved at
random besides, a quarter as far where poses were not found to suit or rows are too few to be asked; images of fewer
than 16 pixels a side, which have no poses, are moved the whole way. This assumes that a small shift or lean makes no
other class of an image; `shift=0, lean=0` turns it off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.cluster import KMeans

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.methods.base import Synthesizer, register
from tfdpgen.methods.c_vae_preset import CVAEPreset, preset_for
from tfdpgen.methods.moments import (
    CENTRE_OF_ALL,
    CENTRES,
    COMPONENTS,
    NEAR_CENTRES,
    NEAR_COMPONENTS,
    ROUGH,
    MomentsPlan,
    noise_of,
    statistics_of,
)
from tfdpgen.methods.running import make_slots, run_plan
from tfdpgen.networks import poses, vae
from tfdpgen.networks.layers import one_hot, scaled_columns
from tfdpgen.networks.waves import ImageFeatures, WaveFeatures
from tfdpgen.privacy import (
    DPSGD,
    Backup,
    ClassCentres,
    ClassMoments,
    Mechanism,
    NoiseSource,
    NoisyCounts,
    PrivacyBudget,
)
from tfdpgen.privacy.chunks import accumulate, private_step, row_reader, scaled
from tfdpgen.privacy.clipping import check_network
from tfdpgen.privacy.statistics import Centres, Moments

_WAVES_TO_TELL = 40  # lowest frequencies of each channel that nearness is judged by
_LEAD = 0.025  # share of the rows by which more have to be nearest to their own class, for poses to suit
_LEAD_OF_COMPONENTS = 0.09  # likewise, nearest to one of two components of their class, for these to be told
_DRAWS = 3000  # of each class, that its components are found in
_CALM = 1.0  # noise multiplier up to which the learning rate is the preset's; above it, it falls in proportion

Array = npt.NDArray[np.float64]


@register
class CVAE(Synthesizer):
    """Conditional variational autoencoder; see the top of this file.

    Args:
      spec: public facts of the data.
      num_examples: number of private rows.
      seed: of initial weights and components, never of the latents that examples are encoded with.
      preset: by default the one for the spec.
      features: what images are described by; by default pose and frequencies, as the preset has them.

    Attributes:
      moments: which mechanisms a budget buys.
      num_measured: of how many features, the first ones, `prepare` released moments.
    """

    method = "c_vae"

    def __init__(
        self,
        spec: DataSpec,
        num_examples: int,
        seed: int,
        preset: CVAEPreset | None = None,
        features: ImageFeatures | None = None,
    ) -> None:
        super().__init__(spec, num_examples, seed, preset or preset_for(spec, num_examples))
        classes, components = spec.num_classes, self.preset.components
        self.features = features or WaveFeatures(
            spec.image_shape, self.preset.num_waves, has_poses=self.preset.has_poses is not False
        )
        self.num_features = self.num_measured = self.features.size
        self.moments = MomentsPlan(self.preset, spec, num_examples, self.num_features, self.features.num_poses)
        self.axes = min(self.preset.latent_dim, self.num_features)
        sizes = (self.num_features, classes * components, self.axes, self.preset.hidden_units)
        self.encoder = vae.build_encoder(*sizes, seed=2 * seed)
        self.decoder = vae.build_decoder(*sizes, seed=2 * seed + 1)
        check_network(self.encoder)
        check_network(self.decoder)
        shape = [classes, components]
        self._centres = tf.Variable(tf.zeros([*shape, self.num_features]), trainable=False, name="centres")
        self._shares = tf.Variable(tf.fill(shape, 1.0 / components), trainable=False, name="shares")
        self._posed = tf.Variable(tf.ones([]), trainable=False, name="posed")  # 0: poses do not suit
        self._spread = tf.Variable(self.preset.spread, trainable=False, name="spread")
        self._moves = tf.Variable(tf.zeros([poses.NUM_POSES]), trainable=False, name="moves")

    def plan(self) -> DPSGD:
        preset = self.preset
        return DPSGD(self.num_examples, preset.expected_batch_size, preset.steps, preset.l2_norm_clip)

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        return self.moments.mechanisms(dataclasses.replace(budget, epsilon=budget.epsilon * self.preset.moments_share))

    def losses(self, features: tf.Tensor, groups: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """-ELBO float32 [n], but for constants, of features [n, d] in groups one-hot [n, g]; noise normal [n, axes]."""
        mean, log_variance = self.encoder([features, groups])
        log_variance = tf.clip_by_value(log_variance, -10.0, 10.0)
        made = self.decoder([mean + tf.exp(log_variance / 2) * noise, groups])
        errors = tf.reduce_sum(tf.square(features - made), axis=1) / (2 * self.preset.variance)
        divergences = tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance, axis=1) / 2
        return errors + self.preset.kl_weight * divergences

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        counts = {part.name: part for part in mechanisms if isinstance(part, NoisyCounts)}
        statistics = statistics_of(mechanisms)
        of_classes, *of_parts = (part for part in statistics if isinstance(part, ClassMoments))
        is_noisy, are_asked = self.moments.is_outweighed(mechanisms), NEAR_COMPONENTS in counts
        may_be_rough = self.moments.may_be_rough() and any(part.name == ROUGH for part in of_parts)
        num_rough_features = self.moments.num_rough_features(noise_of(statistics))
        sizes = dict.fromkeys(CENTRES, self.moments.num_noisy_features if is_noisy else self.num_features)
        if may_be_rough and not are_asked:
            sizes[0.0] = num_rough_features
        measured_from = self._measured_from(dataset, mechanisms, sizes, is_noisy, noise)
        is_rough = may_be_rough and not self._is_posed
        size = lowest = sizes[self._is_posed]
        told = 1
        if is_rough:
            lowest, told = num_rough_features, self.moments.num_rough
        for part in of_parts:
            if part.name == COMPONENTS:
                told = self.moments.num_components(part.noise_multiplier)
        first = self._start_from(dataset, of_classes, noise, size, 1, measured_from)
        found, share = self._found_components(first, lowest, told)
        if are_asked:
            centres = first.means[:, :lowest], found[:, :lowest]
            are_nearer = self._are_nearer(dataset, *centres, counts[NEAR_COMPONENTS], noise)
            if is_rough and not are_nearer:
                is_rough, lowest, told = False, size, 1
                found, share = self._found_components(first, lowest, told)
        self.num_measured = lowest
        if measured_from is not None:
            # Rather than the draws' own distance, which the noise of second moments makes longer. In smaller units, the
            # mechanism's bound is a shorter reach.
            shorter = self.preset.rough_reach / self.preset.reach if is_rough else 1.0
            measured_from = Centres(found if told > 1 else first.means, measured_from.distance * share * shorter)
        for part in of_parts:
            share = of_classes.noise_multiplier**-2 / (of_classes.noise_multiplier**-2 + part.noise_multiplier**-2)
            before = None if told > 1 else (first, share)
            self._start_from(dataset, part, noise, lowest, told, measured_from, before)
        self._settle(is_noisy, is_rough)

    def learn(
        self, dataset: Dataset, plan: DPSGD | None, noise: NoiseSource, verbose: int, backup: Backup | None = None
    ) -> tf.keras.Model:
        assert plan is not None
        assert plan.noise_multiplier is not None
        rows_of = row_reader(dataset)
        first_rate = self.preset.learning_rate * min(1.0, _CALM / max(plan.noise_multiplier, 1e-9))
        rate = tf.keras.optimizers.schedules.PolynomialDecay(first_rate, plan.steps, 0.0)
        optimizer = plan.optimizer(noise, learning_rate=rate)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        make_slots(optimizer, variables)
        per_example = noise.examples()

        @private_step(plan)
        def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            def chunk_fn(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
                draws = per_example.normal([plan.physical_batch_size, self.axes])
                features = self.features.described(scaled(images), self._posed)
                groups = self._groups(features, tf.one_hot(labels, self.spec.num_classes))
                with optimizer.gradient_tape(self.encoder, self.decoder) as tape:
                    losses = self.losses(features, groups, draws) * weights
                return optimizer.clipped_gradient_sum(losses, variables, tape)

            sums = accumulate(rows_of(indices), weights, chunk_fn, variables)
            optimizer.apply_clipped_sum(sums, variables)

        state = {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "optimizer": optimizer,
            "moments": tf.train.Checkpoint(
                centres=self._centres,
                shares=self._shares,
                posed=self._posed,
                spread=self._spread,
                moves=self._moves,
            ),
        }
        run_plan(plan, noise, step, state=state, backup=backup, verbose=verbose)
        return self.generator()

    def generator(self) -> tf.keras.Model:
        """[latents, labels] -> images, as the moments and whatever training there was have made it."""
        moves = self._moves.numpy() if self.preset.shift or self.preset.lean else None
        return self._decoder_of_images("generator", float(self._spread.numpy()), moves)

    def networks(self) -> dict[str, tf.keras.Model]:
        """Both halves, between images and latents, for attacks that have access to the model.

        Returns:
          "encoder": [images float32 [n, h, w, c] in [0, 1], labels int64 [n]] -> mean and log variance [n, latents] of
          q(z | x, y), and "decoder": [latents float32 [n, latents], labels int64 [n]] -> images. Its prior is N(0, I):
          the generator is this decoder on wider latents, and moves what comes out where the preset says so.
        """
        images = tf.keras.Input(self.spec.image_shape, name="images")
        labels = tf.keras.Input((), dtype=tf.int64, name="labels")
        features = self.features.described(images, float(self._posed.numpy()))
        classes = one_hot(labels, self.spec.num_classes)
        groups = self._groups(features, classes)
        posterior = self.encoder([features, groups])
        if self.preset.components > 1:  # that of the latent that chooses: an interval's middle and width
            ends = vae.interval_ends(self._shares.numpy().astype(np.float64)).astype(np.float32)
            middles, widths = (ends[:, 1:] + ends[:, :-1]) / 2, np.maximum(ends[:, 1:] - ends[:, :-1], 1e-3)
            chosen = (middles, np.log(np.square(widths) / 12))
            layers = [tf.keras.layers.Dense(1, use_bias=False) for _ in chosen]
            columns = [layer(groups) for layer in layers]
            for layer, values in zip(layers, chosen, strict=True):
                layer.set_weights([values.reshape(-1, 1)])
            posterior = [tf.concat(parts, axis=1) for parts in zip(columns, posterior, strict=True)]
        return {
            "encoder": tf.keras.Model([images, labels], posterior, name="encoder"),
            "decoder": self._decoder_of_images("decoder"),
        }

    @property
    def _is_posed(self) -> float:
        """1 where features have poses, 0 where they have none or these do not suit."""
        return float(self._posed.numpy() and self.features.num_poses > 0)

    def _measured_from(
        self,
        dataset: Dataset,
        mechanisms: Sequence[Mechanism],
        sizes: Mapping[float, int],
        is_noisy: bool,
        noise: NoiseSource,
    ) -> Centres | None:
        """Asks about poses, if rows are asked, and releases what features are measured from; sizes by poses."""
        counts = next((part for part in mechanisms if part.name == NEAR_CENTRES), None)
        if isinstance(counts, NoisyCounts):
            candidates = [part for part in mechanisms if part.name in CENTRES.values()]
            chosen = self._choose(dataset, candidates, counts, sizes, noise)
            return _together(chosen) if is_noisy else chosen
        if self.preset.has_poses is None:
            self._posed.assign(0.0)
        centres = next((part for part in mechanisms if isinstance(part, ClassCentres)), None)
        return None if centres is None else self._centres_from(dataset, centres, sizes[self._is_posed], noise)

    def _choose(
        self,
        dataset: Dataset,
        candidates: Sequence[Mechanism],
        counts: NoisyCounts,
        sizes: Mapping[float, int],
        noise: NoiseSource,
    ) -> Centres:
        """Decides whether there are poses, and returns the centres of the classes with or without; sizes as wanted."""
        found, is_near = [], []
        for posed, mechanism in zip(CENTRES, candidates, strict=True):
            assert isinstance(mechanism, ClassCentres)
            self._posed.assign(posed)
            size = sizes[posed]
            found.append(mechanism.release(self._blocks(dataset, size), size, self.spec.num_classes, noise))
            is_near.append(self._nearest_to_own(dataset, found[-1].means))
        with_poses, without = counts.release(is_near, noise)
        del is_near
        suits = with_poses - without > _LEAD * self.num_examples
        self._posed.assign(float(suits))
        return found[0 if suits else 1]

    def _are_nearer(
        self, dataset: Dataset, means: Array, found: Array, counts: NoisyCounts, noise: NoiseSource
    ) -> bool:
        """Whether so many more rows are nearest to a component of their class than to its mean that these are told."""
        is_near = [self._nearest_to_own(dataset, centres) for centres in (means, found)]
        by_means, by_components = counts.release(is_near, noise)
        return bool(by_components - by_means > _LEAD_OF_COMPONENTS * self.num_examples)

    def _nearest_to_own(self, dataset: Dataset, means: Array) -> npt.NDArray[np.bool_]:
        """Which rows are nearest to a centre of their own class, by the features that tell best, bool [n]: private.

        Unit of privacy: one row decides its own element alone, given the centres, which are released.

        Args:
          dataset: the private rows.
          means: [classes * centres of each, d].
        """
        size = min(self.features.num_poses + _WAVES_TO_TELL * self.spec.image_shape[2], means.shape[1])
        centres, of_each = means[:, :size], len(means) // self.spec.num_classes
        squares = np.sum(np.square(centres), axis=1)
        is_near = [
            np.argmin(squares - 2 * features @ centres.T, axis=1) // of_each == labels
            for features, labels in self._blocks(dataset, size)
        ]
        return np.concatenate(is_near, dtype=np.bool_)

    def _settle(self, is_noisy: bool, is_rough: bool) -> None:
        """Decides how wide latents are drawn and how far images are moved."""
        preset, is_still = self.preset, not self._posed.numpy()
        height, width, _ = self.spec.image_shape
        if is_noisy:
            self._spread.assign(preset.noisy_spread)
        elif is_rough:
            self._spread.assign(preset.rough_spread)
        else:
            self._spread.assign(preset.still_spread if is_still else preset.spread)
        moves = np.array([preset.shift * width, preset.shift * height, preset.lean])
        self._moves.assign(is_noisy * (preset.still_moves if is_still else 1.0) * moves)

    def _centres_from(self, dataset: Dataset, mechanism: ClassCentres, size: int, noise: NoiseSource) -> Centres:
        """Releases what the first features are measured from: a centre for each class or the one of all rows."""
        classes, blocks = self.spec.num_classes, self._blocks(dataset, size)
        if mechanism.name != CENTRE_OF_ALL:
            return mechanism.release(blocks, size, classes, noise)
        of_all = mechanism.release(((features, np.zeros_like(labels)) for features, labels in blocks), size, 1, noise)
        return Centres(np.repeat(of_all.means, classes, axis=0), of_all.distance)

    def _start_from(
        self,
        dataset: Dataset,
        mechanism: ClassMoments,
        noise: NoiseSource,
        size: int,
        told: int = 1,
        measured_from: Centres | None = None,
        before: tuple[Moments, float] | None = None,
    ) -> Moments:
        """Releases moments of the first features and makes the linear halves theirs.

        Args:
          dataset: the private rows.
          mechanism: of classes or, once their centres are found, of components.
          noise: where noise comes from.
          size: how many features; of the others, nothing is said.
          told: how many components each class has.
          measured_from: what features are measured from, and the unit that they are measured in.
          before: moments of the same, to take the mean with, and the share that these have in it.

        Returns:
          What was made theirs.
        """
        classes, most = self.spec.num_classes, self.preset.components
        of_components = told > 1
        groups = classes * most if of_components else classes
        blocks = self._blocks(dataset, size, of_components)
        if measured_from is not None:
            centres, unit = measured_from.means[:, :size], measured_from.distance
            blocks = (((features - centres[places]) / unit, places) for features, places in blocks)
        moments = mechanism.release(blocks, size, groups, noise)
        if measured_from is not None:
            moments = Moments(moments.counts, centres + unit * moments.means, unit**2 * moments.covariances)
        if before is not None:
            pairs = zip(before[0], moments, strict=True)
            moments = Moments(*(before[1] * one + (1 - before[1]) * other for one, other in pairs))
        means, largest = self._filled(moments)
        # Where a class is one component, its first: what training corrects is what is drawn.
        counts = np.maximum(moments.counts, 1.0).reshape(classes, -1) * (np.arange(most) < told)
        self._shares.assign(counts / counts.sum(axis=1, keepdims=True))
        copies = 1 if of_components else most
        of_groups = (np.repeat(part, copies, axis=0) for part in (means, largest))
        vae.set_gaussians(self.encoder, self.decoder, *of_groups, variance=self.preset.variance)
        return moments

    def _filled(self, moments: Moments) -> tuple[Array, Array]:
        """Means [groups, d] and factors [groups, d, axes] of all features: zeros where nothing was measured."""
        missing = self.num_features - moments.means.shape[1]
        largest = moments.factors[:, :, ::-1][:, :, : self.axes]
        largest = np.pad(largest, [(0, 0), (0, missing), (0, self.axes - largest.shape[2])])
        return np.pad(moments.means, [(0, 0), (0, missing)]), largest

    def _found_components(self, moments: Moments, lowest: int, told: int) -> tuple[Array, float]:
        """Components of draws of the classes' Gaussians, which no private row is near.

        Args:
          moments: of the classes.
          lowest: in how many features, the first ones.
          told: how many components of each class.

        Returns:
          Their centres [classes * components, d], the first repeated for those that cannot be told, and how far from
          their own centre draws lie, as a share of how far from their class's mean.
        """
        covariances = moments.covariances[:, :lowest, :lowest]
        means, factors = self._filled(Moments(moments.counts, moments.means[:, :lowest], covariances))
        found, share = np.repeat(means[:, None], self.preset.components, axis=1), 1.0
        if told > 1:
            rng = np.random.default_rng(self.seed)
            clusters: Any = KMeans(told, random_state=self.seed % 2**32)
            squares = []
            for mean, factor, centres in zip(means, factors, found, strict=True):
                clusters.fit(mean + rng.normal(size=(_DRAWS, factor.shape[1])) @ factor.T)
                centres[:told] = clusters.cluster_centers_
                centres[told:] = clusters.cluster_centers_[0]
                squares.append(clusters.inertia_ / _DRAWS)
            whole = np.sum(np.square(factors), (1, 2)).mean()
            share = math.sqrt(np.mean(squares) / whole) if whole > 0 else 1.0
        self._centres.assign(found)
        return found.reshape(-1, self.num_features), share

    def _blocks(
        self, dataset: Dataset, size: int | None = None, by_component: bool = False
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """The first features of all rows with their classes, or components, block by block."""

        @tf.function(
            input_signature=[tf.TensorSpec([None, *self.spec.image_shape], tf.uint8), tf.TensorSpec([None], tf.int64)]
        )
        def described(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            features = self.features.described(scaled(images), self._posed)
            if not by_component:
                return features, labels
            groups = self._groups(features, tf.one_hot(labels, self.spec.num_classes))
            return features, tf.argmax(groups, axis=1)

        for images, labels in dataset.blocks():
            features, places = described(tf.constant(images), tf.constant(labels))
            yield features.numpy()[:, :size], places.numpy()

    def _groups(self, features: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """The nearest component of its class, one-hot [n, g], of features [n, d] and classes one-hot [n, c].

        Components that are not told are copies of the first. They are left out: which of two equal distances comes out
        smaller would be up to the processor's rounding.
        """
        num_classes, components = self.spec.num_classes, self.preset.components
        if components == 1:
            return classes
        by_class = tf.convert_to_tensor(self._centres)
        is_copy = tf.reduce_all(by_class == by_class[:, :1], axis=2) & (tf.range(components) > 0)
        centres = tf.reshape(by_class, [num_classes * components, -1])
        distances = tf.reduce_sum(tf.square(centres), axis=1) - 2.0 * tf.linalg.matmul(
            features, centres, transpose_b=True
        )
        own = tf.reduce_sum(tf.reshape(distances, [-1, num_classes, components]) * classes[:, :, None], axis=1)
        is_left_out = tf.linalg.matmul(classes, tf.cast(is_copy, tf.float32)) > 0
        own = tf.where(is_left_out, np.float32(np.inf), own)
        nearest = tf.one_hot(tf.argmin(own, axis=1), components)
        return tf.reshape(classes[:, :, None] * nearest[:, None, :], [-1, num_classes * components])

    def _decoder_of_images(
        self, name: str, spread: float = 1.0, moves: npt.NDArray[np.float32] | None = None
    ) -> tf.keras.Model:
        """[latents, labels] -> images: which component, what features, the image that has them, in what pose.

        Args:
          name: of the model.
          spread: what latents are multiplied by.
          moves: [3] what the last latents are multiplied by, to be added to an image's pose; None: there are none.
        """
        choosing = int(self.preset.components > 1)
        own = choosing + self.axes
        latents = tf.keras.Input((own + (0 if moves is None else poses.NUM_POSES),), name="latents")
        labels = tf.keras.Input((), dtype=tf.int64, name="labels")
        if choosing:
            groups = vae.build_selector(self._shares.numpy())([latents[:, :1], labels])
        else:
            groups = one_hot(labels, self.spec.num_classes)
        features = self.decoder(
            [scaled_columns(np.full(self.axes, spread), "spread")(latents[:, choosing:own]), groups]
        )
        moved_by = scaled_columns(moves, "moves")(latents[:, own:]) if moves is not None else None
        images = self.features.drawn(features, float(self._posed.numpy()), moved_by)
        return tf.keras.Model([latents, labels], images, name=name)


def _together(centres: Centres) -> Centres:
    """One centre for all classes, and how far rows lie from it: post-processing of a centre for each."""
    middle = centres.means.mean(axis=0)
    between = float(np.mean(np.sum(np.square(centres.means - middle), axis=1)))
    return Centres(np.tile(middle, (len(centres.means), 1)), math.sqrt(centres.distance**2 + between))
