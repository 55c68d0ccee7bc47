"""Chemical elements: symbols by atomic number, and how far a bond of each reaches.

`nodes["z"]` holds atomic numbers, 1 for hydrogen; 0 means no element and is always an error.  Covalent radii are those
of Cordero et al. (2008), the mean over many crystal structures, for hydrogen to curium; carbon is that of sp³, and
manganese, iron and cobalt are those of low spin.  Heavier elements have none and form no bonds here.

Reference: Cordero et al. 2008 (Covalent radii revisited, Dalton Trans. 2832).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["COVALENT_RADII", "NUMBERS", "SYMBOLS", "check_numbers", "numbers", "symbols"]

SYMBOLS: tuple[str, ...] = tuple(
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og".split()
)
"""Symbols by atomic number; "X" stands for none."""

_PICOMETRES = (
    "31 28 128 96 84 76 71 66 57 58 166 141 121 111 107 105 102 106 203 176 170 160 153 139 139 132 126 124 132 122 "
    "122 120 119 120 120 116 220 195 190 175 164 154 147 146 142 139 145 144 142 139 139 138 139 140 244 215 207 204 "
    "203 201 199 198 198 196 194 192 192 189 190 187 187 175 170 162 151 144 141 136 136 132 145 146 148 140 150 150 "
    "260 221 215 206 200 196 190 187 180 169"
)

COVALENT_RADII: tuple[float, ...] = (0.0, *(int(r) / 100 for r in _PICOMETRES.split()))
"""Ångström by atomic number, to curium (96); 0 for none."""

NUMBERS: dict[str, int] = {symbol.upper(): z for z, symbol in enumerate(SYMBOLS) if z} | {"D": 1, "T": 1}
"""Atomic numbers by symbol in capitals; D and T are isotopes of hydrogen."""


def numbers(symbols: Iterable[str], who: str = "elements") -> Tensor:
    """Atomic numbers (n,) of symbols in any case; deuterium is hydrogen.

    Raises:
        ValueError: for what is no element.

    Example:
        >>> numbers(["C", "CL", "D"])
        tensor([ 6, 17,  1])
    """
    found = []
    for symbol in symbols:
        z = NUMBERS.get(str(symbol).strip().upper())
        if z is None:
            near = difflib.get_close_matches(str(symbol).strip().upper(), NUMBERS, 1)
            hint = f"did you mean {SYMBOLS[NUMBERS[near[0]]]!r}?" if near else "expected symbols such as 'C' or 'Cl'."
            raise ValueError(f"{who}: {symbol!r} is no chemical element; {hint}")
        found.append(z)
    return torch.tensor(found, dtype=torch.long)


def symbols(z: Tensor) -> list[str]:
    """Symbols of atomic numbers (n,).

    Example:
        >>> symbols(torch.tensor([6, 17]))
        ['C', 'Cl']
    """
    check_numbers(z, "elements")
    return [SYMBOLS[i] for i in z.tolist()]


def check_numbers(z: Tensor, who: str) -> None:
    """Refuse what are no atomic numbers.

    Raises:
        TypeError: for numbers that are not integers.
        ValueError: for 0, which is usually padding, and for numbers without an element.
    """
    if z.is_floating_point() or z.is_complex() or z.dtype == torch.bool:
        raise TypeError(f"{who}: atomic numbers must be integers, got {z.dtype}; one-hot species need .argmax(-1).")
    z = z.long()  # bytes would count as a mask wherever they are an index
    wrong = (z < 1) | (z >= len(SYMBOLS))
    if not wrong.any():
        return
    row = int(wrong.nonzero()[0, 0])
    value = int(z[row])
    cure = (
        "0 stands for no atom: give counts, so that padding is left out, and leave out dummy atoms."
        if value == 0
        else "Charges, class labels and masses are not atomic numbers."
    )
    raise ValueError(f"{who}: row {row} has the atomic number {value}, outside 1..{len(SYMBOLS) - 1}. {cure}")
