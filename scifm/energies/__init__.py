"""Energies of sets of points in units of kT: laws that are known but for their normalising constant; one per file."""

from scifm.energies.base import Energy
from scifm.energies.double_well import DoubleWell
from scifm.energies.harmonic import HarmonicCluster
from scifm.energies.lennard_jones import LennardJones
from scifm.energies.pairs import PairEnergy

__all__ = ["DoubleWell", "Energy", "HarmonicCluster", "LennardJones", "PairEnergy"]
