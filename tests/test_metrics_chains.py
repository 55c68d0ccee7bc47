"""Chains: closed forms of size, hand, backbone torsions and superpositions; invariances; samples see no mates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.geometry import Box, alpha_carbons, bond_lengths, from_internal, joined, random_rotation, rmsd, runs
from scifm.metrics import (
    backbone_of,
    clashes,
    handedness,
    helices,
    neighbour_distances,
    radius_of_gyration,
    ramachandran,
    size_scaling,
    tm_scale,
    tm_score,
)

DTYPE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def helix(n=12, hand=1.0, dtype=DTYPE):
    t = torch.arange(n, dtype=dtype)
    w = math.radians(100)
    return torch.stack([2.3 * torch.cos(w * t), hand * 2.3 * torch.sin(w * t), 1.5 * t], -1)


def ragged(*sets, **nodes):
    index = torch.arange(len(sets)).repeat_interleave(torch.tensor([len(s) for s in sets]))
    return Batch(torch.cat(sets), index, len(sets), nodes=nodes)


def turned(x, seed=1):
    return x @ random_rotation(1, 3, torch.Generator().manual_seed(seed), x.dtype)[0].T + 5


# -- size ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_a_straight_chain_has_its_radius(n):
    x = 3.8 * torch.arange(n, dtype=DTYPE)[:, None] * torch.tensor([0.6, 0.0, 0.8], dtype=DTYPE) + 100
    found = radius_of_gyration(ragged(x, x[:0], turned(x)))
    wanted = 3.8 * math.sqrt((n**2 - 1) / 12)
    assert found[[0, 2]].tolist() == pytest.approx([wanted] * 2, rel=1e-9, abs=1e-9) and bool(found[1].isnan())
    torch.testing.assert_close(radius_of_gyration(Batch(x[None])), found[:1])


def test_masses_weigh():
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=DTYPE)
    mass = torch.tensor([3.0, 1.0], dtype=DTYPE)
    assert float(radius_of_gyration(ragged(x), mass)) == pytest.approx(math.sqrt((3 * 1 + 9) / 4))
    assert float(radius_of_gyration(ragged(x, x), torch.cat([mass, mass.new_tensor([1.0, 0.0])]))[1]) == 0.0


def test_the_radius_follows_pairs_and_the_exponent_is_found():
    x = normal(9, 3)
    pairs = (x[:, None] - x).square().sum(-1).mean() / 2  # Rg² is half the mean square distance
    assert float(radius_of_gyration(Batch(x[None])) ** 2) == pytest.approx(float(pairs))
    n = torch.tensor([10, 20, 50, 100, 300])
    law = size_scaling(n, 2.2 * n.double() ** 0.38)
    assert law.prefactor == pytest.approx(2.2) and law.exponent == pytest.approx(0.38)
    assert law.exponent_stderr < 1e-6 and "n^0.380" in str(law)
    errors = []
    for seed in range(60):
        counts = torch.randint(20, 400, (80,), generator=torch.Generator().manual_seed(seed))
        law = size_scaling(counts, 2.2 * counts.double() ** 0.4 * torch.exp(0.1 * normal(80, seed=seed)))
        errors.append((law.exponent - 0.4) / law.exponent_stderr)
    assert 0.75 < float(torch.tensor(errors).std()) < 1.3
    with pytest.raises(ValueError, match="different lengths"):
        size_scaling(torch.tensor([5, 5, 5]), torch.ones(3))


def test_neighbours_are_those_of_the_chain():
    x = normal(8, 3)
    batch = ragged(x[:5], x[5:], position=torch.tensor([0, 1, 2, 5, 6, 0, 1, 2]))
    found = neighbour_distances(batch)
    steps = (x[1:] - x[:-1]).norm(dim=-1)
    torch.testing.assert_close(found, steps[[0, 1, 3, 5, 6]])


def test_clashes_are_counted_once_and_not_along_the_chain():
    x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0.2, 0]], dtype=DTYPE)
    assert clashes(ragged(x, x[:0], x[:2]), 1.1).tolist() == [3, 0, 0]  # 0-3, 0-4, 1-4
    assert clashes(ragged(x), 1.1, apart=1).tolist() == [7]
    assert clashes(ragged(x), 1.1, apart=4).tolist() == [1]
    two = ragged(x, chain=torch.tensor([0, 0, 0, 1, 1]))
    assert clashes(two, 1.1).tolist() == [4]  # 2 and 3 are no neighbours now
    far = ragged(x, position=torch.tensor([0, 1, 2, 8, 9]))
    assert clashes(far, 1.1).tolist() == [4]
    wide = ragged(torch.tensor([[0.1, 0.0], [5.0, 0.0], [9.9, 0.0]], dtype=DTYPE))
    assert clashes(wide, 0.3).tolist() == [0]
    assert clashes(wide, 0.3, box=Box(torch.tensor([10.0, 10.0], dtype=DTYPE))).tolist() == [1]
    with pytest.raises(ValueError, match="positive cutoff"):
        clashes(wide, 0.0)


# -- hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_helices_have_their_hand(dtype):
    right, left = helix(dtype=dtype), helix(hand=-1.0, dtype=dtype)
    strand = torch.stack([3.3 * torch.arange(9.0), torch.arange(9.0) % 2 * 1.9, torch.zeros(9)], -1).to(dtype)
    batch = ragged(turned(right), turned(left), turned(strand), right[:3])
    found = helices(batch)
    assert found.right.tolist() == [9, 0, 0, 0] and found.left.tolist() == [0, 9, 0, 0]
    assert found.runs.tolist() == [9, 9, 6, 0]
    assert found.right_fraction == 0.5 and found.content == pytest.approx(18 / 24)
    hand = handedness(batch)
    assert float(hand[0]) == pytest.approx(-float(hand[1]), rel=1e-4) and float(hand[0]) > 0.3
    assert float(hand[2]) == pytest.approx(0.0, abs=1e-5) and bool(hand[3].isnan())


def test_a_mirror_turns_the_hand_and_a_rotation_does_not():
    batch = Batch(normal(5, 20, 3).cumsum(1))
    mirrored = batch.replace(batch.x * torch.tensor([-1.0, 1.0, 1.0], dtype=DTYPE))
    torch.testing.assert_close(handedness(mirrored), -handedness(batch))
    torch.testing.assert_close(handedness(batch.replace(turned(batch.x))), handedness(batch))
    there, back = helices(batch), helices(mirrored)
    assert torch.equal(there.right, back.left) and torch.equal(there.left, back.right)
    assert bool((handedness(batch).abs() <= 1).all())
    assert math.isnan(helices(ragged(helix(3))).right_fraction)


def test_the_error_of_the_hand_is_that_of_independent_chains():
    g = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        hands = torch.rand(30, generator=g) < 0.7
        found.append(helices(Batch(torch.stack([helix(10, 1.0 if h else -1.0) for h in hands]))))
    fractions = torch.tensor([f.right_fraction for f in found])
    claimed = torch.tensor([f.stderr for f in found]).mean()
    assert 0.8 < float(fractions.std() / claimed) < 1.25


# -- backbone -----------------------------------------------------------------------------------------------------


def backbone(phi, psi, omega=math.pi):
    """A chain of ideal residues (N, CA, C) with given torsions in radians: (L, 3, 3)."""
    n = len(phi)
    length = torch.tensor([1.46, 1.52, 1.33], dtype=DTYPE).repeat(n)[:-1]
    angle = torch.deg2rad(torch.tensor([111.0, 117.0, 121.0], dtype=DTYPE)).repeat(n)[:-2]
    omegas = torch.full_like(phi, omega)
    torsion = torch.stack([psi, omegas, phi.roll(-1)], -1).reshape(-1)[:-3]
    return from_internal(length, angle, torsion).reshape(n, 3, 3)


def test_backbone_torsions_come_back():
    g = torch.Generator().manual_seed(0)
    phi, psi = (2 * math.pi * torch.rand(2, 9, generator=g, dtype=DTYPE) - math.pi).unbind()
    x = backbone(phi, psi, math.radians(-170))
    found = ramachandran(x)
    torch.testing.assert_close(found.phi[1:], phi[1:])
    torch.testing.assert_close(found.psi[:-1], psi[:-1])
    torch.testing.assert_close(found.omega[:-1], torch.full((8,), math.radians(-170), dtype=DTYPE))
    assert found.phi[0].isnan() and found.psi[-1].isnan() and found.omega[-1].isnan()
    assert found.pairs.shape == (7, 2)
    torch.testing.assert_close(ramachandran(turned(x)).pairs, found.pairs)
    torch.testing.assert_close(ramachandran(-x).pairs, -found.pairs)
    batched = ramachandran(torch.stack([x, -x]))
    torch.testing.assert_close(batched.phi[0], found.phi, equal_nan=True)
    for n in (0, 1):
        assert ramachandran(x[:n]).phi.shape == (n,) and ramachandran(x[:n]).pairs.shape == (0, 2)


def test_an_alpha_helix_of_its_torsions_is_right_handed():
    n = 15
    x = backbone(torch.full((n,), math.radians(-57), dtype=DTYPE), torch.full((n,), math.radians(-47), dtype=DTYPE))
    ca = x[:, 1]
    assert helices(Batch(ca[None])).right_fraction == 1.0
    assert float(bond_lengths(ca).mean()) == pytest.approx(3.80, abs=0.03)
    rise = (ca[4:] - ca[:-4]).norm(dim=-1).mean()
    assert 5.8 < float(rise) < 6.5  # Å, from i to i + 4


def test_gaps_have_no_torsions():
    x = backbone(torch.zeros(6, dtype=DTYPE), torch.ones(6, dtype=DTYPE))
    x[3:] += 20.0
    found = ramachandran(x)
    assert found.phi.isnan().tolist() == [True, False, False, True, False, False]
    assert found.psi.isnan().tolist() == [False, False, True, False, False, True]
    assert ramachandran(x, torch.ones(5, dtype=torch.bool)).phi.isnan().sum() == 1
    with pytest.raises(ValueError, match="expected joined of shape"):
        ramachandran(x, torch.ones(6, dtype=torch.bool))
    with pytest.raises(ValueError, match="N CA C"):
        ramachandran(x[:, :2])


def atoms(lengths):
    """A batch of backbones whose rows are N, CA, C, O."""
    sets = []
    for k, n in enumerate(lengths):
        x = backbone(normal(n, seed=k), normal(n, seed=k + 9))
        sets.append(torch.cat([x, x[:, 2:] + 1.0], 1).reshape(-1, 3))
    place = torch.cat([torch.arange(n).repeat_interleave(4) for n in lengths])
    place[place >= 4] += 3  # residues are missing after the fourth
    atom = torch.arange(4).repeat(sum(lengths))
    return ragged(*sets, position=place, atom=atom)


def test_chains_whose_rows_are_atoms_are_those_of_their_alpha_carbons():
    batch = atoms([6, 1, 3])
    ca = alpha_carbons(batch)
    assert ca.counts.tolist() == [6, 1, 3] and "atom" not in ca.nodes
    assert torch.equal(joined(batch), joined(ca)) and joined(batch).sum() == 3 + 1 + 2
    assert torch.equal(batch.x[runs(batch, 3)], ca.x[runs(ca, 3)])
    for f in (neighbour_distances, handedness, lambda b: helices(b).runs):
        torch.testing.assert_close(f(batch), f(ca), equal_nan=True)
    x, follows = backbone_of(batch)
    assert x.shape == (10, 3, 3) and torch.equal(x[:, 1], ca.x)
    found, alone = ramachandran(x, follows), ramachandran(batch.split()[2].reshape(3, 4, 3))
    torch.testing.assert_close(found.phi[-3:], alone.phi, equal_nan=True)
    assert found.phi.isnan().tolist() == [True, *[False] * 3, True, False, True, True, False, False]
    with pytest.raises(ValueError, match=r"expected nodes\['atom'\]"):
        backbone_of(ca)
    with pytest.raises(ValueError, match="next to each other"):
        backbone_of(Batch(batch.x, batch.index, 3, nodes={"atom": batch.nodes["atom"].flip(0)}))
    shifted = batch.nodes["position"] + (batch.nodes["atom"] == 2)
    with pytest.raises(ValueError, match="other residues"):
        backbone_of(Batch(batch.x, batch.index, 3, nodes={"atom": batch.nodes["atom"], "position": shifted}))


# -- TM -----------------------------------------------------------------------------------------------------------


def test_the_scale_is_that_of_the_paper():
    assert float(tm_scale(torch.tensor(115))) == pytest.approx(1.24 * 100 ** (1 / 3) - 1.8)
    assert tm_scale(torch.tensor([0, 15, 20])).tolist() == [0.5, 0.5, pytest.approx(0.5)]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 60])
def test_the_same_structure_scores_one_and_order_does_not_matter(n):
    x = normal(3, n, 3).cumsum(1) * 2
    torch.testing.assert_close(tm_score(x, turned(x)), torch.ones(3, dtype=DTYPE), rtol=0, atol=1e-9)
    y = x + 0.5 * normal(3, n, 3, seed=1)
    score = tm_score(x, y)
    assert bool((score > 0).all()) and bool((score <= 1).all())
    torch.testing.assert_close(tm_score(turned(x), y), score, rtol=1e-6, atol=0)
    torch.testing.assert_close(tm_score(y, x), score, rtol=1e-3, atol=0)  # starts differ by rounding
    assert tm_score(x[:0], y[:0]).shape == (0,)


def test_half_a_structure_that_fits_scores_half_whatever_the_other_half_does():
    x = normal(80, 3).cumsum(0) * 2.2
    y = turned(x)
    y[40:] += 300.0  # RMSD is dominated by it
    assert float(rmsd(x, y)) > 50
    assert float(tm_score(x, y)) == pytest.approx(0.5, abs=0.01)
    assert float(tm_score(x[:40], y[:40], length=torch.tensor(80))) == pytest.approx(0.5, abs=1e-6)


def test_it_climbs_above_the_plain_superposition_and_ignores_padding():
    from scifm.geometry import align

    x, y = normal(4, 50, 3).cumsum(1) * 2, normal(4, 50, 3, seed=1).cumsum(1) * 2
    mask = torch.arange(50) < torch.tensor([50, 33, 4, 0])[:, None]
    score = tm_score(x, y, mask)
    for b, n in enumerate((50, 33, 4)):
        alone = tm_score(x[b, :n], y[b, :n])
        assert float(score[b]) == pytest.approx(float(alone), rel=1e-9)
        apart = (align(x[b, :n], y[b, :n]) - y[b, :n]).square().sum(-1)
        assert float(alone) >= float((1 / (1 + apart / tm_scale(torch.tensor(n)) ** 2)).mean()) - 1e-9
    assert score[3].isnan()
    with pytest.raises(ValueError, match="equal n"):
        tm_score(x, y[:, :7])


def test_the_score_is_that_of_biotite_for_one_superposition():
    structure = pytest.importorskip("biotite.structure")
    x, y = helix(40), helix(40) + 0.4 * normal(40, 3)
    both = []
    for v in (x, y):
        array = structure.AtomArray(40)
        array.coord, array.atom_name[:], array.res_id[:] = v.numpy().astype(np.float32), "CA", np.arange(1, 41)
        array.res_name[:], array.element[:] = "ALA", "C"
        both.append(array)
    every = np.arange(40)
    fitted, *_ = structure.superimpose(both[0], both[1])
    plain = structure.tm_score(both[0], fitted, every, every)
    ours = float(tm_score(x, y))
    assert plain - 1e-4 <= ours < plain + 0.02  # ours searches for the best superposition


# -- real proteins --------------------------------------------------------------------------------------------------


def test_real_proteins_are_within_what_is_known(scifm_data):
    with np.load(scifm_data("proteins_bm5") / "bm5_segments.npz", allow_pickle=False) as file:
        offset = torch.from_numpy(file["offset"].astype(np.int64))[:201]
        x = torch.from_numpy(file["backbone"][: offset[-1]]).double()
    index = torch.arange(200).repeat_interleave(offset.diff())
    position = torch.arange(len(x)) - offset[:-1][index]
    batch = Batch(x[:, 1], index, 200, nodes={"position": position})
    found = neighbour_distances(batch)
    assert (
        float(found.median()) == pytest.approx(3.80, abs=0.02)
        and float(((found - 3.8).abs() > 0.2).double().mean()) < 0.01
    )
    helical = helices(batch)
    assert helical.right_fraction > 0.97 and 0.2 < helical.content < 0.5
    assert float(clashes(batch, 3.4).double().mean()) < 0.1
    law = size_scaling(batch.counts, radius_of_gyration(batch))
    assert 0.25 < law.exponent < 0.42
    torsion = torch.rad2deg(ramachandran(x, joined(batch)).pairs)
    assert float((torsion[:, 0] < 0).double().mean()) > 0.9  # L-amino acids
