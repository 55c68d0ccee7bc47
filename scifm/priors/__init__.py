"""Base distributions p0 with exact densities, one idea per file."""

from scifm.priors import spectra
from scifm.priors.base import Prior
from scifm.priors.conditional import Conditional
from scifm.priors.distribution import FromTorch
from scifm.priors.empirical import Empirical
from scifm.priors.eof import EOFGaussian
from scifm.priors.flow import FromZuko
from scifm.priors.full import FullGaussian
from scifm.priors.gaussian import Gaussian
from scifm.priors.masked import Masked
from scifm.priors.mean_free import MeanFreeGaussian
from scifm.priors.mixture import Mixture
from scifm.priors.spectral import SpectralGaussian

__all__ = [
    "Conditional",
    "EOFGaussian",
    "Empirical",
    "FromTorch",
    "FromZuko",
    "FullGaussian",
    "Gaussian",
    "Masked",
    "MeanFreeGaussian",
    "Mixture",
    "Prior",
    "SpectralGaussian",
    "spectra",
]
