"""Base distributions p0 with exact densities, one idea per file."""

from scifm.priors import spectra, variances
from scifm.priors.ar1 import AR1
from scifm.priors.base import Prior
from scifm.priors.chain import HarmonicChain, SpectralChain
from scifm.priors.choice import best
from scifm.priors.cloud import Ball, Shell
from scifm.priors.composition import Composition
from scifm.priors.conditional import Conditional
from scifm.priors.distribution import FromTorch
from scifm.priors.empirical import Empirical
from scifm.priors.eof import EOFGaussian
from scifm.priors.flow import FromZuko
from scifm.priors.full import FullGaussian
from scifm.priors.full_points import FullPoints
from scifm.priors.gaussian import Gaussian
from scifm.priors.globular import GlobularChain
from scifm.priors.graph import HarmonicGraph, SpectralGraph
from scifm.priors.masked import Masked
from scifm.priors.mean_free import MeanFreeGaussian
from scifm.priors.mixture import Mixture
from scifm.priors.points import SpectralPoints
from scifm.priors.rows import RowGaussian
from scifm.priors.sizes import Sizes
from scifm.priors.spectral import SpectralGaussian
from scifm.priors.sphere import SphericalGaussian
from scifm.priors.zonal import ZonalGaussian

__all__ = [
    "AR1",
    "Ball",
    "Composition",
    "Conditional",
    "EOFGaussian",
    "Empirical",
    "FromTorch",
    "FromZuko",
    "FullGaussian",
    "FullPoints",
    "Gaussian",
    "GlobularChain",
    "HarmonicChain",
    "HarmonicGraph",
    "Masked",
    "MeanFreeGaussian",
    "Mixture",
    "Prior",
    "RowGaussian",
    "Shell",
    "Sizes",
    "SpectralChain",
    "SpectralGaussian",
    "SpectralGraph",
    "SpectralPoints",
    "SphericalGaussian",
    "ZonalGaussian",
    "best",
    "spectra",
    "variances",
]
