"""Structures of proteins: PDB, mmCIF, BinaryCIF, GRO and trajectories in; PDB, mmCIF and extended XYZ out.

read -> chains, report     files or folders      --to_batch-->  a ragged batch in Å
read_ensemble -> Ensemble  models, trajectories  --.batch-->    a ragged batch in Å
WRITERS                    what `Data(writers=)` takes, so that `scifm sample RUN -o x.pdb` works
"""

from __future__ import annotations

from types import MappingProxyType

from scifm.data.structures.chains import Chain
from scifm.data.structures.ensembles import Ensemble, read_ensemble
from scifm.data.structures.models import write_cif, write_pdb
from scifm.data.structures.reading import read, to_batch
from scifm.data.structures.report import Report
from scifm.data.structures.residues import NAMES
from scifm.data.structures.xyz import write_xyz

__all__ = [
    "NAMES",
    "WRITERS",
    "Chain",
    "Ensemble",
    "Report",
    "read",
    "read_ensemble",
    "to_batch",
    "write_cif",
    "write_pdb",
    "write_xyz",
]

WRITERS = MappingProxyType({".pdb": write_pdb, ".cif": write_cif, ".xyz": write_xyz})
"""What `Data(writers=)` takes."""
