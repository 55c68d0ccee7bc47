"""What a residue is: one of the twenty, another amino acid, water, nucleic acid, or something else.

The names are those of the Chemical Component Dictionary, as gemmi tabulates its frequent ones: a modified residue
counts as the one it was made from (MSE is MET); a D-amino acid has the other hand, so it does not.  Force fields have
names of their own for protonation states.
"""

from __future__ import annotations

from functools import cache

__all__ = ["ALIASES", "ELEMENTS", "NAMES", "SITES", "UNKNOWN", "WATERS", "kind_of"]

NAMES = tuple("ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split())
"""The twenty in the order of their numbers 0 .. 19 in `nodes["residue"]`."""
UNKNOWN = len(NAMES)
"""Any other amino acid, written as UNK."""
SITES, ELEMENTS = ("N", "CA", "C", "O"), ("N", "C", "C", "O")
"""Atoms of the backbone in the order of their numbers 0 .. 3 in `nodes["atom"]`, and of what they are."""

_LETTERS = "ARNDCQEGHILKMFPSTWYV"
ALIASES = {
    "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "HISA": "HIS", "HISB": "HIS",
    "HISD": "HIS", "HISE": "HIS", "HISH": "HIS", "HIS1": "HIS", "HIS2": "HIS", "CYX": "CYS", "CYM": "CYS",
    "CYS2": "CYS", "CYSH": "CYS", "ASH": "ASP", "ASPH": "ASP", "GLH": "GLU", "GLUH": "GLU", "LYN": "LYS",
    "LYSH": "LYS", "LYSN": "LYS", "ARGN": "ARG",
}  # fmt: skip
"""Names of protonation states in Amber, CHARMM and GROMACS."""
WATERS = frozenset("HOH WAT DOD H2O SOL TIP TIP3 TIP4 TIP5 TIP3P TIP4P SPC SPCE".split())


@cache
def kind_of(name: str) -> tuple[str, int]:
    """("protein", number of the residue), ("D-amino acid", 20), ("water" | "nucleic" | "other" | "unlisted", -1).

    Example:
        >>> kind_of("MSE"), kind_of("HOH"), kind_of("DA")
        (('protein', 12), ('water', -1), ('nucleic', -1))
    """
    import gemmi

    name = ALIASES.get(name, name)
    if name in NAMES:
        return "protein", NAMES.index(name)
    if name in WATERS:
        return "water", -1
    found = gemmi.find_tabulated_residue(name)
    if not found.found():
        return "unlisted", -1
    if found.is_water():
        return "water", -1
    if found.is_nucleic_acid():
        return "nucleic", -1
    if not found.is_amino_acid():
        return "other", -1
    if found.kind == gemmi.ResidueKind.AAD:
        return "D-amino acid", UNKNOWN
    letter = found.one_letter_code.upper()
    return "protein", _LETTERS.index(letter) if letter in _LETTERS else UNKNOWN
