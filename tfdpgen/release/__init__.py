"""What leaves the trust boundary: a private generator with its account, and what is made of it at no further cost."""

from tfdpgen.release.archive import UntrustedArchiveError, load_network
from tfdpgen.release.augmentation import Augmentation
from tfdpgen.release.labeller import Labeller, LabellerTraining, labeller_mechanism, prepare_labeller
from tfdpgen.release.release import Release, TrainingSet, sample_latents, to_uint8
from tfdpgen.release.saved_model import export_saved_model

__all__ = [
    "Augmentation",
    "Labeller",
    "LabellerTraining",
    "Release",
    "TrainingSet",
    "UntrustedArchiveError",
    "export_saved_model",
    "labeller_mechanism",
    "load_network",
    "prepare_labeller",
    "sample_latents",
    "to_uint8",
]
