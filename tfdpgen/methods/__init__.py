"""Methods that learn a generator through a private session; one file for each."""

from tfdpgen.methods.c_vae import CVAE
from tfdpgen.methods.dp_diffusion import DPDiffusion
from tfdpgen.methods.dp_gan import DPGAN
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.methods.gaussian_mixture import GaussianMixture
from tfdpgen.methods.gs_wgan import GSWGAN
from tfdpgen.methods.latent_gaussian import LatentGaussian
from tfdpgen.methods.method import Fitted, Method, method_class, method_names, register
from tfdpgen.methods.pate_gan import PATEGAN
from tfdpgen.methods.training import train

__all__ = [
    "CVAE",
    "DPGAN",
    "GSWGAN",
    "PATEGAN",
    "DPDiffusion",
    "FedAvgGAN",
    "Fitted",
    "GaussianMixture",
    "LatentGaussian",
    "Method",
    "method_class",
    "method_names",
    "register",
    "train",
]
