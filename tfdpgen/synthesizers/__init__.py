"""Methods that learn a generator from private rows; one file for each."""

from tfdpgen.synthesizers.base import Synthesizer, synthesizer_names, train
from tfdpgen.synthesizers.c_vae import CVAE, CVAEPreset
from tfdpgen.synthesizers.dp_gan import DPGAN, DPGANPreset
from tfdpgen.synthesizers.release import Release, draw_latents, to_uint8

__all__ = [
    "CVAE",
    "DPGAN",
    "CVAEPreset",
    "DPGANPreset",
    "Release",
    "Synthesizer",
    "draw_latents",
    "synthesizer_names",
    "to_uint8",
    "train",
]
