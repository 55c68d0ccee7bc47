"""Base distributions p0 with exact densities, one idea per file."""

from scifm.priors import spectra
from scifm.priors.base import Prior
from scifm.priors.full import FullGaussian
from scifm.priors.gaussian import Gaussian
from scifm.priors.spectral import SpectralGaussian

__all__ = ["FullGaussian", "Gaussian", "Prior", "SpectralGaussian", "spectra"]
