"""tfdpgen: synthetic labelled images from private ones, under differential privacy, with an honest account.

    from tfdpgen.data import load_splits
    from tfdpgen.privacy import PrivacyBudget
    from tfdpgen.methods import train

    release = train("gaussian_mixture", load_splits("digits").train, PrivacyBudget(epsilon=3.0, delta=1e-5))
    images = release.sample(labels=[0, 1, 2], seed=0)

The rooms and what each is for: docs/architecture.md.
"""

from tfdpgen.installation import select_legacy_keras

__version__ = "0.1.0"

select_legacy_keras()
