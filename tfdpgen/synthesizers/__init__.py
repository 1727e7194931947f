"""Methods that learn a generator from private rows; one file for each."""

from tfdpgen.synthesizers.base import Synthesizer, Trained, synthesizer_names, train, train_with_networks
from tfdpgen.synthesizers.c_vae import CVAE, CVAEPreset
from tfdpgen.synthesizers.class_gaussian import ClassGaussian, ClassGaussianPreset
from tfdpgen.synthesizers.dp_gan import DPGAN, DPGANPreset
from tfdpgen.synthesizers.release import Release, draw_latents, to_uint8
from tfdpgen.synthesizers.stroke_vae import StrokeVAE, StrokeVAEPreset
from tfdpgen.synthesizers.teacher import Teacher, TeacherPreset

__all__ = [
    "CVAE",
    "DPGAN",
    "CVAEPreset",
    "ClassGaussian",
    "ClassGaussianPreset",
    "DPGANPreset",
    "Release",
    "StrokeVAE",
    "StrokeVAEPreset",
    "Synthesizer",
    "Teacher",
    "TeacherPreset",
    "Trained",
    "draw_latents",
    "synthesizer_names",
    "to_uint8",
    "train",
    "train_with_networks",
]
