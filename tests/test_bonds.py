"""Elements, bonds from distances, keys of molecules, and splits by name: against tables, brute force and symmetry."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import ase.build
import ase.data
import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.data import bonds, elements
from scifm.data.ase import from_ase
from scifm.data.constitution import constitution, fragments
from scifm.data.molecules import check_molecules, keep_atoms
from scifm.data.sift import sift
from scifm.data.splits import by_name
from scifm.geometry import random_rotation


def g2(*names):
    return from_ase([ase.build.molecule(name) for name in names], torch.float64)


def sets(*sizes, d=3, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(sum(sizes), d, generator=generator, dtype=dtype)
    return Batch(x, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), len(sizes))


# -- elements --------------------------------------------------------------------------------------------------------


def test_symbols_and_radii_are_those_of_the_papers():
    assert list(elements.SYMBOLS) == ase.data.chemical_symbols
    np.testing.assert_allclose(elements.COVALENT_RADII[1:], ase.data.covalent_radii[1:97], atol=1e-12)  # Cordero 2008
    assert elements.numbers(elements.SYMBOLS[1:]).tolist() == list(range(1, 119))
    assert elements.numbers([" cl", "BR", "D", "t"]).tolist() == [17, 35, 1, 1]
    assert elements.symbols(torch.tensor([1, 6, 118])) == ["H", "C", "Og"]


# -- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 50, 2**22])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_close_pairs_are_those_that_brute_force_finds(monkeypatch, at_once, dtype):
    monkeypatch.setattr(bonds, "PAIRS", at_once)
    batch = sets(5, 0, 1, 9, 2, 0, 4, 3, 5, dtype=dtype)
    batch.x[-8] = 0  # where padding lies, which must not be taken for a point
    reach = torch.rand(len(batch.x), generator=torch.Generator().manual_seed(1), dtype=dtype)
    i, j, distance = bonds.close_pairs(batch, reach)
    expected = []
    for a in range(len(batch.x)):
        for b in range(a + 1, len(batch.x)):
            far = float((batch.x[a] - batch.x[b]).norm())
            if batch.index[a] == batch.index[b] and far < float(reach[a] + reach[b]):
                expected.append((a, b, far))
    assert 3 < len(expected) == len(i)
    assert [(a, b) for a, b, _ in expected] == list(zip(i.tolist(), j.tolist(), strict=True))
    np.testing.assert_allclose(distance, [d for *_, d in expected], rtol=1e-6)


def test_no_points_have_no_pairs():
    for batch in (sets(0, 0), sets(1), sets(1, 1)):
        i, j, distance = bonds.close_pairs(batch, torch.ones(len(batch.x), dtype=torch.float64))
        assert len(i) == len(j) == len(distance) == 0


def test_infinitely_small_reach_has_no_neighbours():
    batch = sets(4)
    assert len(bonds.close_pairs(batch, torch.full((4,), -torch.inf, dtype=torch.float64))[0]) == 0


# -- bonds -----------------------------------------------------------------------------------------------------------

COUNTS = {"CH4": 4, "C2H4": 5, "C6H6": 12, "CH3CH2OH": 8, "H2O": 2, "N2": 1, "H2": 1, "H": 0, "CH3SH": 5, "CCl4": 4}


@pytest.mark.parametrize("name", COUNTS)
def test_bonds_of_known_molecules(name):
    found = bonds.perceive(g2(name))
    assert found.edge_index.shape[1] == 2 * COUNTS[name]
    check_molecules(found)


@pytest.mark.parametrize(
    ("name", "pair", "order"),
    [("C2H6", (6, 6), 1), ("C2H4", (6, 6), 2), ("C2H2", (6, 6), 3), ("N2", (7, 7), 3), ("CO", (6, 8), 3),
     ("HCN", (6, 7), 3), ("H2CO", (6, 8), 2), ("CH3OH", (6, 8), 1), ("O2", (8, 8), 2), ("H2O2", (8, 8), 1),
     ("CH3Cl", (6, 17), 1)],
)  # fmt: skip
def test_orders_of_known_bonds(name, pair, order):
    batch = bonds.perceive(g2(name))
    z = batch.nodes["z"][batch.edge_index]
    heavy = {tuple(sorted(p)): k for p, k in zip(z.T.tolist(), batch.edges["bond"].tolist(), strict=True)}
    assert heavy[pair] == order - 1


def test_orders_are_edm_s_thresholds():
    """By the paper's words: below ℓ₁ + 10 pm single, and of these below ℓ₂ + 5 double, and of these below ℓ₃ + 3."""
    lengths = {(6, 6): (154, 134, 120), (6, 7): (147, 129, 116), (1, 6): (109,), (15, 16): (210, 186), (6, 2): ()}
    distance = torch.linspace(0.9, 2.5, 161, dtype=torch.float64) + 1e-4
    for (a, b), known in lengths.items():
        expected = []
        for d in distance.tolist():
            order = 0
            for length, margin in zip(known, (10, 5, 3), strict=False):
                if 100 * d < length + margin:
                    order += 1
                else:
                    break
            expected.append(order)
        for z_i, z_j in ((a, b), (b, a)):
            found = bonds.orders(torch.full((161,), z_i), torch.full((161,), z_j), distance)
            assert found.tolist() == expected


def test_elements_beyond_the_tables_are_not_bonded():
    fermium = torch.tensor([100, 100])
    assert bonds.orders(fermium, fermium, torch.ones(2)).tolist() == [0, 0]
    pair = Batch(torch.eye(2, 3), torch.zeros_like(fermium), 1, nodes={"z": fermium})
    assert bonds.perceive(pair).edge_index.shape == (2, 0)


def test_bonds_do_not_depend_on_pose_order_or_batch_mates():
    names = ["C6H6", "CH3CH2OH", "H", "C2H2"]
    whole = bonds.perceive(g2(*names))
    for b, name in enumerate(names):
        one = g2(name)
        alone = bonds.perceive(one)
        mine = whole.select([b])
        assert torch.equal(alone.edge_index, mine.edge_index) and torch.equal(alone.edges["bond"], mine.edges["bond"])
        turn = random_rotation(1, 3, torch.Generator().manual_seed(b), torch.float64)[0]
        moved = bonds.perceive(one.replace(one.x @ turn.T + 7))
        assert torch.equal(alone.edge_index, moved.edge_index)
        order = torch.randperm(len(one.x), generator=torch.Generator().manual_seed(b))
        shuffled = bonds.perceive(replace(one, x=one.x[order], nodes={"z": one.nodes["z"][order]}))
        assert {*map(tuple, order[shuffled.edge_index].T.tolist())} == {*map(tuple, alone.edge_index.T.tolist())}


def test_both_ways_lists_each_edge_twice_in_order():
    edge_index, value = bonds.both_ways(torch.tensor([0, 4, 1]), torch.tensor([3, 2, 0]), torch.tensor([7, 8, 9]))
    assert edge_index.tolist() == [[0, 0, 1, 2, 3, 4], [1, 3, 0, 4, 0, 2]] and value.tolist() == [9, 7, 9, 8, 7, 8]
    assert bonds.both_ways(*torch.zeros(2, 0, dtype=torch.long))[0].shape == (2, 0)


def test_bonds_agree_until_one_is_missing_too_many_or_squashed():
    whole = bonds.perceive(g2("CH4", "C6H6", "CH3CH2OH"))
    assert bonds.bonds_agree(whole).tolist() == [True, True, True]
    far = whole.x.clone()
    far[1] += 3  # a hydrogen of methane
    assert bonds.bonds_agree(whole.replace(far)).tolist() == [False, True, True]
    hydrogen = bonds.perceive(g2("H2"))
    assert bonds.bonds_agree(hydrogen).all() and not bonds.bonds_agree(hydrogen.replace(0.4 * hydrogen.x)).any()
    extra = torch.cat([whole.edge_index, torch.tensor([[1, 2], [2, 1]])], 1)  # two hydrogens of methane
    assert bonds.bonds_agree(replace(whole, edge_index=extra, edges={})).tolist() == [False, True, True]
    less = whole.edge_index[:, (whole.edge_index != 1).all(0)]  # methane without one of its bonds
    assert bonds.bonds_agree(replace(whole, edge_index=less, edges={})).tolist() == [False, True, True]


# -- keys ------------------------------------------------------------------------------------------------------------

ISOMERS = ["butadiene", "2-butyne", "bicyclobutane", "cyclobutene", "methylenecyclopropane"]  # all C4H6


def test_isomers_have_different_keys_and_copies_the_same():
    batch = bonds.perceive(g2(*ISOMERS))
    keys = constitution(batch)
    assert len(keys.unique()) == len(ISOMERS)
    for b, name in enumerate(ISOMERS):
        one = bonds.perceive(g2(name))
        order = torch.randperm(len(one.x), generator=torch.Generator().manual_seed(b))
        shuffled = bonds.perceive(replace(g2(name), x=one.x[order], nodes={"z": one.nodes["z"][order]}))
        mirrored = bonds.perceive(one.replace(-one.x))
        assert constitution(one) == constitution(shuffled) == constitution(mirrored) == keys[b]


def test_keys_see_elements_and_classes_of_bonds():
    batch = bonds.perceive(g2("C2H6"))
    other = {"bond": batch.edges["bond"].clone()}
    other["bond"][batch.nodes["z"][batch.edge_index].eq(6).all(0)] = 1
    assert constitution(batch) != constitution(replace(batch, edges=other))
    heavier = batch.nodes["z"].clone()
    heavier[0] = 14
    assert constitution(batch) != constitution(replace(batch, nodes={"z": heavier}))


def carbons(n, *pairs):
    """A molecule of n carbons with these bonds."""
    edge_index, _ = bonds.both_ways(*torch.tensor(pairs).T, torch.zeros(len(pairs)))
    zeros = torch.zeros(n, dtype=torch.long)
    return Batch(torch.zeros(n, 3), zeros, 1, nodes={"z": zeros + 6}, edge_index=edge_index)


def test_keys_are_blind_where_refinement_is():
    """Decalin and bicyclopentyl; if this fails, the theory page may promise more."""
    decalin = carbons(10, *[(k, (k + 1) % 10) for k in range(10)], (0, 5))
    bicyclopentyl = carbons(
        10, *[(k, (k + 1) % 5) for k in range(5)], *[(5 + k, 5 + (k + 1) % 5) for k in range(5)], (0, 5)
    )
    assert constitution(decalin) == constitution(bicyclopentyl)
    naphthalene_like = carbons(10, *[(k, (k + 1) % 10) for k in range(10)], (0, 4))
    assert constitution(decalin) != constitution(naphthalene_like)


def test_keys_are_the_same_everywhere():
    """Splits rest on them: two numbers by another implementation, in Python's integers."""
    mask = 2**64 - 1

    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
        return x ^ x >> 31

    batch = bonds.perceive(g2("CH3CH2OH"))
    label = [mix(z) for z in batch.nodes["z"].tolist()]
    edges = list(zip(*batch.edge_index.tolist(), batch.edges["bond"].tolist(), strict=True))
    for _ in range(12):
        new = list(label)
        for i, j, kind in edges:
            new[i] = (new[i] + mix(label[j] ^ mix(1000 + kind))) & mask
        label = [mix(v) for v in new]
    expected = mix(sum(label) & mask)
    assert int(constitution(batch)) % 2**64 == expected


def test_fragments_count_pieces():
    batch = replace(sets(5, 0, 3, 1), edge_index=torch.tensor([[0, 1, 1, 2, 5, 6], [1, 0, 2, 1, 6, 5]]))
    assert fragments(batch).tolist() == [3, 0, 2, 1]


# -- leaving out -----------------------------------------------------------------------------------------------------


def test_keep_atoms_keeps_what_lies_between_the_kept():
    batch = bonds.perceive(g2("CH3CH2OH", "CH4", "C2H4"))
    heavy = keep_atoms(batch, batch.nodes["z"] != 1)
    assert heavy.counts.tolist() == [3, 1, 2] and len(heavy) == 3
    assert torch.equal(heavy.x, batch.x[batch.nodes["z"] != 1])
    again = bonds.perceive(replace(heavy, edge_index=None, edges={}))
    assert torch.equal(heavy.edge_index, again.edge_index) and torch.equal(heavy.edges["bond"], again.edges["bond"])
    nothing = keep_atoms(batch, torch.zeros(len(batch.x), dtype=torch.bool))
    assert nothing.counts.tolist() == [0, 0, 0] and nothing.edge_index.shape == (2, 0)


def test_sift_counts_each_molecule_once_under_its_first_reason():
    batch = bonds.perceive(g2("CH4", "H2", "C6H6", "NaCl", "SiH4", "CH3CH2OH", "C2H4", "CH3SH"))
    x, z = batch.x.clone(), batch.nodes["z"].clone()
    starts = (batch.counts.cumsum(0) - batch.counts).tolist()
    x[starts[5]] = torch.nan
    z[starts[6]] = 0
    x[starts[7]] += 9
    found = sift(replace(batch, x=x, nodes={"z": z}), ["H", "C", "O", "S"], 3, 10)
    assert found.kept.tolist() == [0]
    assert found.left_out == {
        "with missing coordinates": 1, "with unknown elements": 1, "with metals": 1, "with other elements": 1,
        "too small": 1, "too large": 1, "with bonds that distances deny": 1,
    }  # fmt: skip
    assert sum(found.left_out.values()) + len(found.kept) == found.total == 8
    assert str(found).startswith("kept 1 of 8 molecules, left out 1 with missing coordinates")


def test_sift_finds_pieces_and_coincident_atoms():
    two = carbons(4, (0, 1), (2, 3))
    x = torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [9, 0, 0], [10.5, 0, 0]])
    with pytest.raises(ValueError, match="1 in several pieces; loosen the filters"):
        sift(two.replace(x), ["C"])
    twins = Batch(torch.tensor([[0.0, 0, 0], [0.1, 0, 0]]), torch.zeros(2, dtype=torch.long), 1,
                  nodes={"z": torch.tensor([6, 6])})  # fmt: skip
    with pytest.raises(ValueError, match="1 with atoms in one place"):
        sift(twins, ["C"])


# -- splits ----------------------------------------------------------------------------------------------------------


def test_a_name_stays_in_its_split_whatever_else_there_is():
    names = [f"M{k}" for k in range(3000)]
    rows = by_name(names)
    home = {names[k]: split for split, chosen in rows.items() for k in chosen.tolist()}
    assert set(home) == set(names)
    fewer = by_name(names[::-3])
    for split, chosen in fewer.items():
        assert {home[names[::-3][k]] for k in chosen.tolist()} == {split}
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert abs(len(rows[split]) / 3000 - share) < 0.03
    for name in names[:50]:  # by the words of the theory page
        u = int(hashlib.sha256(name.encode()).hexdigest(), 16) / 2**256
        assert home[name] == ("test" if u < 0.1 else "valid" if u < 0.2 else "train")


def test_equal_names_stay_together():
    rows = by_name([f"M{k // 2}" for k in range(400)])
    for chosen in rows.values():
        assert len((chosen // 2).unique()) == len(chosen) / 2
