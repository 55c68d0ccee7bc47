"""How far samples are from data, and how far a flow carries its points: numbers that no training saw."""

from scifm.metrics.energy import normalised_path_energy, path_energy
from scifm.metrics.nats import Nats, entropy_floor, nats
from scifm.metrics.path_length import PathLength, path_length
from scifm.metrics.reweighting import Reweighted, reweight
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
]
