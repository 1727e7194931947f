"""Methods that learn a generator from private rows; one file for each."""

from tfdpgen.methods.base import Synthesizer, Trained, method_names, train, train_with_networks
from tfdpgen.methods.c_vae import CVAE, CVAEPreset
from tfdpgen.methods.class_gaussian import ClassGaussian, ClassGaussianPreset
from tfdpgen.methods.dp_gan import DPGAN, DPGANPreset
from tfdpgen.methods.labeller import LabellerPreset
from tfdpgen.methods.stroke_vae import StrokeVAE, StrokeVAEPreset

__all__ = [
    "CVAE",
    "DPGAN",
    "CVAEPreset",
    "ClassGaussian",
    "ClassGaussianPreset",
    "DPGANPreset",
    "LabellerPreset",
    "StrokeVAE",
    "StrokeVAEPreset",
    "Synthesizer",
    "Trained",
    "method_names",
    "train",
    "train_with_networks",
]
