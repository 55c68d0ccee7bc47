"""The Chemical Component Dictionary of the wwPDB, offline: every small molecule of the Protein Data Bank.

biotite (BSD-3) ships the whole dictionary as one BinaryCIF file: some 49 000 compounds with elements, bonds and two
sets of coordinates, "ideal" (one low conformation, computed by Corina or OpenEye) and "model" (as found in one
structure).  Here it becomes one ragged batch.  The dictionary is in the public domain (CC0 1.0).

References: Westbrook et al. 2015 (the dictionary); Kunzmann et al. 2023 (biotite).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.bonds import both_ways
from scifm.data.elements import NUMBERS

__all__ = ["COORDINATES", "Components", "dictionary", "read_components"]

COORDINATES = {"ideal": "pdbx_model_Cartn_{}_ideal", "model": "model_Cartn_{}"}
_ORDER = {"SING": 0, "DOUB": 1, "TRIP": 2}  # all else is 4, other


@dataclass(frozen=True, eq=False)
class Components:
    """All compounds of the dictionary.

    Attributes:
        ids: C names of up to five letters, such as "ALA".
        batch: x (N, 3) float32 in Å, NaN where the dictionary has none; nodes["z"], 0 for an unknown element;
            edge_index in both directions and edges["bond"] (0 single, 1 double, 2 triple, 3 aromatic, 4 other).
        obsolete: (C,) bool, withdrawn or replaced.
    """

    ids: tuple[str, ...]
    batch: Batch
    obsolete: Tensor


def dictionary() -> Path:
    """The dictionary's file inside biotite.

    Raises:
        FileNotFoundError: where biotite is missing, or came without it.
    """
    try:
        import biotite.structure.info as info
    except ImportError as error:
        raise FileNotFoundError(
            "components: the Chemical Component Dictionary comes with biotite, which is not installed: "
            "pip install 'biotite>=1.2'."
        ) from error
    path = Path(info.__file__).parent / "components.bcif"
    if not path.is_file():
        raise FileNotFoundError(
            f"components: this biotite came without its dictionary ({path}); `python -m biotite.setup_ccd` fetches it."
        )
    return path


def read_components(path: Path | None = None, coordinates: str = "ideal") -> Components:
    """The whole dictionary as one batch, in a few seconds.

    Args:
        path: of a BinaryCIF file like biotite's; its own by default.
        coordinates: "ideal" or "model".

    Raises:
        ValueError: for other coordinates, for a file without the expected tables, or with bonds to atoms it lacks.
        FileNotFoundError: see `dictionary`.
    """
    if coordinates not in COORDINATES:
        raise ValueError(f'components: coordinates must be "ideal" or "model", got {coordinates!r}.')
    path = dictionary() if path is None else path
    block = _open(path)
    compounds, atoms, bonds = (block[name] for name in ("chem_comp", "chem_comp_atom", "chem_comp_bond"))
    ids = compounds["id"].as_array()
    order = np.argsort(ids, kind="stable")
    ids, obsolete = ids[order], compounds["pdbx_release_status"].as_array()[order] == "OBS"
    known = _packed(ids)
    rank = np.argsort(known)

    owner = rank[_position(known[rank], _packed(atoms["comp_id"].as_array()), path)]
    rows = np.argsort(owner, kind="stable")
    x = np.stack([_coordinate(atoms[COORDINATES[coordinates].format(k)]) for k in "xyz"], 1)[rows]
    elements, which = np.unique(atoms["type_symbol"].as_array()[rows], return_inverse=True)
    z = np.array([NUMBERS.get(e.upper(), 0) for e in elements])[which]

    # A bond names its ends; compound and name together are a number that can be looked up.
    names = owner[rows].astype(np.uint64) << np.uint64(40) | _packed(atoms["atom_id"].as_array()[rows])
    lookup = np.argsort(names)
    of = rank[_position(known[rank], _packed(bonds["comp_id"].as_array()), path)].astype(np.uint64) << np.uint64(40)
    ends = [lookup[_position(names[lookup], of | _packed(bonds[f"atom_id_{end}"].as_array()), path)] for end in (1, 2)]
    written = bonds["value_order"].as_array()
    kind = np.select([written == word for word in _ORDER], list(_ORDER.values()), 4)
    kind = np.where(bonds["pdbx_aromatic_flag"].as_array() == "Y", 3, kind)
    edge_index, kind = both_ways(*map(torch.from_numpy, (*ends, kind)))
    batch = Batch(
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(owner[rows]),
        len(ids),
        nodes={"z": torch.from_numpy(z)},
        edge_index=edge_index,
        edges={"bond": kind},
    )
    return Components(tuple(ids.tolist()), batch, torch.from_numpy(obsolete))


def _open(path: Path) -> Any:
    from biotite.structure.io.pdbx import BinaryCIFFile

    try:
        block = BinaryCIFFile.read(path).block
        missing = [n for n in ("chem_comp", "chem_comp_atom", "chem_comp_bond") if n not in block]
    except Exception as error:  # msgpack's and biotite's own, of many kinds
        raise ValueError(f"components: {path} is no readable BinaryCIF ({type(error).__name__}: {error}).") from error
    if missing:
        raise ValueError(f"components: {path} has no table {', '.join(missing)}, so it is no component dictionary.")
    return block


def _packed(words: np.ndarray) -> np.ndarray:
    """Words of up to five characters as numbers, eight bits each."""
    letters = np.ascontiguousarray(words).view(np.uint32).reshape(len(words), -1).astype(np.uint64)
    if letters.shape[1] > 5 or (letters > 255).any():
        raise ValueError("components: expected names of up to five letters; this dictionary needs a newer scifm.")
    return sum((letters[:, k] << np.uint64(8 * k) for k in range(letters.shape[1])), np.zeros(len(words), np.uint64))


def _position(among: np.ndarray, wanted: np.ndarray, path: Path) -> np.ndarray:
    """Where each wanted number stands among sorted ones."""
    found = np.searchsorted(among, wanted).clip(max=max(0, len(among) - 1))
    lost = int((among[found] != wanted).sum()) if len(among) else len(wanted)
    if lost:
        raise ValueError(f"components: {lost} entries of {path} name a compound or an atom that it does not hold.")
    return found


def _coordinate(column: Any) -> np.ndarray:
    values = column.as_array().astype(np.float64)
    return values if column.mask is None else np.where(column.mask.array == 0, values, np.nan)
