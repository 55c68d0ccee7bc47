"""How far samples are from data, and how far a flow carries its points: numbers that no training saw."""

from scifm.metrics.backbone import Ramachandran, ramachandran
from scifm.metrics.chains import PowerLaw, clashes, neighbour_distances, radius_of_gyration, size_scaling
from scifm.metrics.distributions import (
    Comparison,
    bootstrap,
    compare,
    jensen_shannon,
    kolmogorov_smirnov,
    wasserstein_line,
)
from scifm.metrics.energy import normalised_path_energy, path_energy
from scifm.metrics.handedness import Helices, handedness, helices
from scifm.metrics.nats import Nats, entropy_floor, nats
from scifm.metrics.pair_distances import PairDensity, pair_density, pair_distances, radial_distribution
from scifm.metrics.path_length import PathLength, path_length
from scifm.metrics.reweighting import Reweighted, reweight
from scifm.metrics.structures import bond_angles, compare_structures, of_bonds, of_chains
from scifm.metrics.tm import tm_scale, tm_score
from scifm.metrics.transport import wasserstein
from scifm.weights import Weights, weigh

__all__ = [
    "Nats",
    "PathLength",
    "Reweighted",
    "Weights",
    "entropy_floor",
    "nats",
    "normalised_path_energy",
    "path_energy",
    "path_length",
    "reweight",
    "wasserstein",
    "weigh",
    "Comparison",
    "Helices",
    "PairDensity",
    "PowerLaw",
    "Ramachandran",
    "bond_angles",
    "bootstrap",
    "clashes",
    "compare",
    "compare_structures",
    "handedness",
    "helices",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "neighbour_distances",
    "of_bonds",
    "of_chains",
    "pair_density",
    "pair_distances",
    "radial_distribution",
    "radius_of_gyration",
    "ramachandran",
    "size_scaling",
    "tm_scale",
    "tm_score",
    "wasserstein_line",
]
