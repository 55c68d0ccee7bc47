"""Energies of sets of points in units of kT: laws that are known but for their normalising constant; one per file.

And what makes them useful: samples from nothing (`sample`), their constant (`annealed`), and the one number that every
energy knows of its own samples (`virial`).
"""

from scifm.energies.annealing import Annealed, Levels, annealed, pilot
from scifm.energies.base import Energy
from scifm.energies.bridge import Bridge
from scifm.energies.double_well import DoubleWell
from scifm.energies.harmonic import HarmonicCluster
from scifm.energies.hmc import lattice
from scifm.energies.lennard_jones import LennardJones
from scifm.energies.pairs import PairEnergy
from scifm.energies.sampling import MonteCarlo, Samples, sample
from scifm.energies.virial import Virial, virial

__all__ = [
    "Annealed",
    "Bridge",
    "DoubleWell",
    "Energy",
    "HarmonicCluster",
    "LennardJones",
    "Levels",
    "MonteCarlo",
    "PairEnergy",
    "Samples",
    "Virial",
    "annealed",
    "lattice",
    "pilot",
    "sample",
    "virial",
]
