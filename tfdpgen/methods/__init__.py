"""Methods that learn a generator from private rows; one file for each."""

from tfdpgen.methods.base import Synthesizer, Trained, method_names, train, train_with_networks
from tfdpgen.methods.c_vae import CVAE, CVAEPreset
from tfdpgen.methods.class_gaussian import ClassGaussian, ClassGaussianPreset
from tfdpgen.methods.dp_gan import DPGAN, DPGANPreset
from tfdpgen.methods.release import Release, draw_latents, to_uint8
from tfdpgen.methods.stroke_vae import StrokeVAE, StrokeVAEPreset
from tfdpgen.methods.teacher import Teacher, TeacherPreset

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
    "method_names",
    "to_uint8",
    "train",
    "train_with_networks",
]
