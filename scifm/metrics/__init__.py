"""How far samples are from data, and how far a flow carries its points: numbers that no training saw."""

from scifm.metrics.energy import normalised_path_energy, path_energy
from scifm.metrics.transport import wasserstein

__all__ = ["normalised_path_energy", "path_energy", "wasserstein"]
