"""Stable atoms and molecules by EDM's convention, and bonds found again: against an implementation by loops."""

from __future__ import annotations

import math
from dataclasses import replace

import ase.build
import pytest
import torch

from scifm import Batch
from scifm.data import bonds
from scifm.data.ase import from_ase
from scifm.metrics.molecules import (
    VALENCES,
    bonds_recovered,
    by_length,
    stable_atoms,
    stable_molecules,
    validity,
)

GOOD = ["CH4", "C2H6", "C2H4", "C2H2", "H2O", "NH3", "HCN", "H2CO", "CH3OH", "CH3Cl", "SiH4", "N2", "H2", "HF", "CH3SH"]
BAD = {
    "CO": "carbon with one triple bond",
    "OH": "a radical",
    "CH3": "a radical",
    "O": "an atom alone",
    "NO": "a radical",
}


def g2(*names):
    return from_ase([ase.build.molecule(name) for name in names], torch.float64)


def test_small_closed_shells_are_stable_and_radicals_are_not():
    names = [*GOOD, *BAD]
    batch = g2(*names)
    found = dict(zip(names, stable_molecules(batch).tolist(), strict=True))
    assert found == {**dict.fromkeys(GOOD, True), **dict.fromkeys(BAD, False)}
    scores = validity(batch)
    assert scores.molecule_stable == scores.valid == len(GOOD) / len(names) and scores.connected == 1.0
    assert scores.unique == 1.0 and scores.molecules == len(names)
    assert "75.0 % molecule-stable" in str(scores)


def by_loops(x, z):
    """EDM's check of one molecule, in the words of the paper; single bonds only where a pair has no others."""
    single = {(1, 1): 74, (1, 6): 109, (1, 7): 101, (1, 8): 96, (6, 6): 154, (6, 7): 147, (6, 8): 143, (7, 7): 145,
              (7, 8): 140, (8, 8): 148}  # fmt: skip
    double = {(6, 6): 134, (6, 7): 129, (6, 8): 120, (7, 7): 125, (7, 8): 121, (8, 8): 121}
    triple = {(6, 6): 120, (6, 7): 116, (6, 8): 113, (7, 7): 110}
    valence = {1: 1, 6: 4, 7: 3, 8: 2}
    total = [0] * len(z)
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            pair, far, order = tuple(sorted((z[i], z[j]))), 100 * math.dist(x[i], x[j]), 0
            if far < single[pair] + 10:
                order = 1
                if pair in double and far < double[pair] + 5:
                    order = 2
                    if pair in triple and far < triple[pair] + 3:
                        order = 3
            total[i] += order
            total[j] += order
    return [t == valence[k] for t, k in zip(total, z, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_stable_atoms_are_those_of_the_loops(noise, dtype):
    names = ["C6H6", "CH3CH2OH", "HCN", "CH3NO2", "N2H4", "H2O2", "O3", "H", "C3H4_D2d"]
    batch = g2(*names).to(dtype)
    wiggle = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    batch = batch.replace(batch.x + noise * wiggle)
    expected = []
    for b in range(len(batch)):
        one = batch.select([b])
        expected += by_loops(one.x.tolist(), one.nodes["z"].tolist())
    assert stable_atoms(batch).tolist() == expected
    assert noise == 0.05 or 0 < sum(expected) < len(expected)


def test_qm7_is_as_stable_as_its_page_says(scifm_data):
    from scifm.data import load_dataset

    scifm_data("qm7")
    data = load_dataset("molecules").molecules("qm7")
    scores = validity(data.test)
    assert scores.atom_stable == pytest.approx(0.995, abs=0.003)
    assert scores.molecule_stable == pytest.approx(0.968, abs=0.02)
    assert scores.connected == 1.0 and scores.unique > 0.98
    assert bonds_recovered(data.test).all()


def test_pieces_copies_and_squashed_atoms_are_told():
    far = g2("CH4", "CH4", "H2O", "C2H6")
    twice = from_ase([ase.build.molecule("H2O") + _moved("H2O", 9.0)], torch.float64)
    scores = validity(Batch.join([far, twice]))
    assert scores.molecule_stable == 1.0 and scores.connected == 0.8 and scores.valid == 0.8
    assert scores.unique == 0.75  # two of the four valid ones are methane
    squashed = validity(twice.replace(torch.zeros_like(twice.x)))
    assert squashed.atom_stable == squashed.valid == 0 and math.isnan(squashed.unique)


def _moved(name, by):
    atoms = ase.build.molecule(name)
    atoms.translate([by, 0, 0])
    return atoms


def test_valences_are_a_choice():
    batch = g2("CH3SH", "SO2")
    assert stable_molecules(batch).tolist()[0] and not stable_molecules(batch, {**VALENCES, 16: (4,)}).tolist()[0]
    assert not stable_atoms(batch, {1: (1,)})[batch.nodes["z"] != 1].any()


def test_more_bonds_than_any_valence_are_no_valence():
    corners = 1.56 * torch.cat([torch.eye(3), -torch.eye(3), torch.full((1, 3), 3**-0.5)]).double()
    for fluorines, stable in ((6, True), (7, False)):
        x = torch.cat([torch.zeros(1, 3).double(), corners[:fluorines]])
        z = torch.tensor([16] + [9] * fluorines)
        assert stable_atoms(Batch(x, torch.zeros_like(z), 1, nodes={"z": z}))[0] == stable


def test_bonds_by_length_are_those_by_radii_in_organic_molecules():
    batch = g2(*GOOD)
    assert torch.equal(by_length(batch).edge_index, bonds.perceive(batch).edge_index)
    helium = Batch(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), 1, nodes={"z": torch.tensor([2])})
    assert by_length(helium).edge_index.shape == (2, 0) and not stable_molecules(helium)


def test_bonds_are_recovered_until_they_are_stretched():
    batch = bonds.perceive(g2("C6H6", "CH3CH2OH", "C2H2"))
    assert bonds_recovered(batch).all()
    assert not bonds_recovered(batch.replace(1.6 * batch.x)).any()
    assert not bonds_recovered(batch.replace(0 * batch.x)).any()
    aromatic = replace(batch, edges={"bond": torch.full_like(batch.edges["bond"], 3)})
    assert bonds_recovered(aromatic).all()  # classes have no part in it
    with pytest.raises(ValueError, match="came without bonds"):
        bonds_recovered(g2("H2O"))
