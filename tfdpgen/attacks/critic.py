"""Which of a critic's scores speak of an image: what attacks on a critic share.

scores = scores_that_count(critic, images, labels, spec.num_classes)        # float32 [n, k], higher is more real

A critic gives an image a score for each label, of which that of its label counts, or, where it knows no labels, one for
each part of the image, of which all count.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def scores_that_count(critic: Any, images: Any, labels: Any, num_classes: int) -> tf.Tensor:
    """The critic's scores of images, as images of their labels where it knows labels.

    Args:
      critic: images float32 [n, h, w, c] in [0, 1] -> scores [n, num_classes], or [n, parts] with parts that are not as
        many as classes. See `tfdpgen.methods.Fitted.networks`.
      images: float32 [n, h, w, c].
      labels: int64 [n].
      num_classes: of the data.

    Returns:
      [n, 1] of a critic that knows labels, else [n, parts].
    """
    scores = critic(images, training=False)
    if scores.shape[1] != num_classes:
        return scores
    return tf.gather(scores, labels, axis=1, batch_dims=1)[:, None]
