"""How far samples are from data, and how far a flow carries its points: numbers that no training saw."""

from scifm.areas import area_mean, area_weights, cell_areas, latitude_weights
from scifm.metrics.backbone import Ramachandran, backbone_of, ramachandran
from scifm.metrics.calibration import (
    RankHistogram,
    SpreadSkill,
    interval_coverage,
    pit,
    rank_histogram,
    ranks,
    spread_skill,
)
from scifm.metrics.chains import PowerLaw, clashes, neighbour_distances, radius_of_gyration, size_scaling
from scifm.metrics.clouds import CloudScores, chamfer, cloud_scores, emd
from scifm.metrics.distributions import (
    Comparison,
    bootstrap,
    compare,
    jensen_shannon,
    kolmogorov_smirnov,
    wasserstein_line,
)
from scifm.metrics.energy import normalised_path_energy, path_energy
from scifm.metrics.ensembles import brier, crps, energy_score, threshold_weighted_crps, variogram_score
from scifm.metrics.fields import (
    Components,
    FieldDistance,
    energy_distance,
    field_distances,
    leading_components,
    patches_of,
    sliced_wasserstein,
)
from scifm.metrics.handedness import Helices, handedness, helices
from scifm.metrics.molecules import Validity, bonds_recovered, stable_atoms, stable_molecules, validity
from scifm.metrics.moments import MomentErrors, Moments, moment_errors, moments, quantile_maps
from scifm.metrics.nats import Nats, entropy_floor, nats
from scifm.metrics.pair_distances import PairDensity, pair_density, pair_distances, radial_distribution
from scifm.metrics.path_length import PathLength, path_length
from scifm.metrics.pde import boundary_rmse, conserved_rmse, darcy_residual, fourier_rmse, residual_norm, vrmse
from scifm.metrics.reweighting import Reweighted, reweight
from scifm.metrics.spectra import Spectrum, SpectrumError, ffm_spectrum, radial_spectrum, spectrum_error, zonal_spectrum
from scifm.metrics.sphere import degree_power, degree_spectrum
from scifm.metrics.structures import bond_angles, compare_structures, of_bonds, of_chains
from scifm.metrics.tm import tm_scale, tm_score
from scifm.metrics.transport import wasserstein
from scifm.weights import Weights, weigh

__all__ = [
    "CloudScores",
    "Comparison",
    "Components",
    "FieldDistance",
    "Helices",
    "MomentErrors",
    "Moments",
    "Nats",
    "PairDensity",
    "PathLength",
    "PowerLaw",
    "Ramachandran",
    "RankHistogram",
    "Reweighted",
    "Spectrum",
    "SpectrumError",
    "SpreadSkill",
    "Validity",
    "Weights",
    "area_mean",
    "area_weights",
    "backbone_of",
    "bond_angles",
    "bonds_recovered",
    "bootstrap",
    "boundary_rmse",
    "brier",
    "cell_areas",
    "chamfer",
    "clashes",
    "cloud_scores",
    "compare",
    "compare_structures",
    "conserved_rmse",
    "crps",
    "darcy_residual",
    "degree_power",
    "degree_spectrum",
    "emd",
    "energy_distance",
    "energy_score",
    "entropy_floor",
    "ffm_spectrum",
    "field_distances",
    "fourier_rmse",
    "handedness",
    "helices",
    "interval_coverage",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "latitude_weights",
    "leading_components",
    "moment_errors",
    "moments",
    "nats",
    "neighbour_distances",
    "normalised_path_energy",
    "of_bonds",
    "of_chains",
    "pair_density",
    "pair_distances",
    "patches_of",
    "path_energy",
    "path_length",
    "pit",
    "quantile_maps",
    "radial_distribution",
    "radial_spectrum",
    "radius_of_gyration",
    "ramachandran",
    "rank_histogram",
    "ranks",
    "residual_norm",
    "reweight",
    "size_scaling",
    "sliced_wasserstein",
    "spectrum_error",
    "spread_skill",
    "stable_atoms",
    "stable_molecules",
    "threshold_weighted_crps",
    "tm_scale",
    "tm_score",
    "validity",
    "variogram_score",
    "vrmse",
    "wasserstein",
    "wasserstein_line",
    "weigh",
    "zonal_spectrum",
]
