"""Arrays, ASE and PyG in and out, and molecules as files that other programs read."""

from __future__ import annotations

import warnings
from dataclasses import replace

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Batch as PygBatch
from torch_geometric.data import Data, InMemoryDataset

from scifm import Batch
from scifm.data import bonds
from scifm.data.arrays import from_arrays, to_arrays, to_padded
from scifm.data.ase import from_ase, to_ase
from scifm.data.sdf import write_sdf
from scifm.data.structures import write_xyz

NAMES = ["CH3CH2OH", "H", "C2H4", "HCN"]


def molecules(dtype=torch.float64):
    return from_ase([ase.build.molecule(name) for name in NAMES], dtype)


def same(a, b):
    return torch.equal(a.x, b.x) and torch.equal(a.index, b.index) and len(a) == len(b)


# -- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_lists_and_padded_arrays_are_one(dtype, kind):
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 3)).astype(dtype) for n in (4, 1, 7)]
    ragged = from_arrays([kind(s) for s in sets])
    padded = np.full((3, 7, 3), np.nan, dtype)
    for row, s in zip(padded, sets, strict=True):
        row[: len(s)] = s
    assert same(ragged, from_arrays(kind(padded), kind(np.array([4, 1, 7]))))
    assert ragged.x.dtype == torch.from_numpy(sets[0]).dtype and ragged.counts.tolist() == [4, 1, 7]
    out = to_arrays(ragged)["x"]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(out, sets, strict=True))
    back = to_padded(ragged)
    assert same(ragged, from_arrays(back["x"], back["counts"])) and back["x"].dtype == dtype


def test_species_come_as_lists_padded_or_one_for_all():
    batch = molecules()
    lists, padded = to_arrays(batch), to_padded(batch)
    again = from_arrays(lists["x"], z=lists["z"])
    assert same(again, batch) and torch.equal(again.nodes["z"], batch.nodes["z"])
    again = from_arrays(padded["x"], padded["counts"], z=padded["z"])
    assert torch.equal(again.nodes["z"], batch.nodes["z"]) and again.nodes["z"].dtype == torch.long
    frames = from_arrays(np.stack([lists["x"][2]] * 5), z=lists["z"][2], context={"label": np.arange(5)})
    assert frames.nodes["z"].tolist() == lists["z"][2].tolist() * 5 and frames.context["label"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_arrays_of_any_layout_and_order_of_bytes():
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    locked, sets = x.copy(), np.empty(2, object)
    locked.flags.writeable = False
    sets[:] = list(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same_x in (np.asfortranarray(x), x.astype(">f8"), x.astype(np.longdouble), locked, sets, x[::-1][::-1]):
            assert np.array_equal(from_arrays(same_x).x.numpy().reshape(x.shape), x)
        assert np.array_equal(from_arrays(x[::-1]).x.numpy(), x[::-1].reshape(8, 3))
    assert from_arrays(x.astype(np.float16)).x.dtype == torch.float16
    for z in ([8, 1, 1, 6], np.array([8, 1, 1, 6], ">i4"), np.array([8, 1, 1, 6], "u1"), np.array([6, 1, 1, 8])[::-1]):
        assert from_arrays(x * 9, z=z).nodes["z"].tolist() == [8, 1, 1, 6] * 2


def test_atomic_numbers_of_one_byte_are_no_mask():
    x, z = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), torch.tensor([8, 1, 1])
    for kind in (torch.uint8, torch.int8, torch.uint16, torch.int32):
        batch = Batch.from_pyg(Data(pos=x, z=z.to(kind)))
        assert bonds.perceive(batch).edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]


def test_bonds_are_numbered_from_each_set_and_go_both_ways():
    batch = bonds.perceive(molecules())
    lists = to_arrays(batch)
    given = []
    for b in range(len(batch)):
        one = batch.select([b])
        once = one.edge_index[0] < one.edge_index[1]
        given.append(torch.cat([one.edge_index[:, once].T, one.edges["bond"][once, None]], 1).numpy())
    again = from_arrays(lists["x"], z=lists["z"], bonds=given)
    assert torch.equal(again.edge_index, batch.edge_index) and torch.equal(again.edges["bond"], batch.edges["bond"])
    plain = from_arrays(lists["x"], z=lists["z"], bonds=[g[:, :2] for g in given])
    assert torch.equal(plain.edge_index, batch.edge_index) and not plain.edges["bond"].any()
    assert from_arrays([np.zeros((1, 3))], bonds=[[]]).edge_index.shape == (2, 0)


def test_dense_batches_go_out_as_sets():
    x = torch.arange(12.0).reshape(2, 3, 2)
    assert np.array_equal(np.stack(to_arrays(Batch(x))["x"]), x.numpy())
    assert to_padded(Batch(x))["counts"].tolist() == [3, 3]


# -- ASE -------------------------------------------------------------------------------------------------------------


def test_atoms_go_in_and_out():
    atoms = [ase.build.molecule(name) for name in NAMES]
    batch = from_ase(atoms, torch.float64)
    back = to_ase(batch, torch.tensor([1.5, -2.0, 0.0, 3.0]))
    for a, b, log_prob in zip(atoms, back, (1.5, -2.0, 0.0, 3.0), strict=True):
        assert np.array_equal(a.positions, b.positions) and np.array_equal(a.numbers, b.numbers)
        assert b.info == {"log_prob": log_prob} and not b.pbc.any()
    assert from_ase(atoms[0]).x.dtype == torch.float32 and len(from_ase(atoms[0])) == 1
    assert not batch.context


def test_cell_and_periodicity_are_kept_if_all_have_them():
    crystals = [ase.build.bulk("NaCl", "rocksalt", a=5.6), ase.build.bulk("Cu", cubic=True)]
    slab = ase.build.fcc111("Al", (1, 1, 2), vacuum=5.0)  # periodic in two directions
    batch = from_ase([*crystals, slab], torch.float64)
    assert batch.context["cell"].shape == (3, 3, 3) and batch.context["pbc"].tolist()[2] == [True, True, False]
    for a, b in zip([*crystals, slab], to_ase(batch), strict=True):
        assert (
            np.array_equal(a.pbc, b.pbc)
            and np.allclose(a.cell.array, b.cell.array)
            and np.allclose(a.positions, b.positions)
        )
    boxed = ase.build.molecule("H2O", vacuum=3.0)
    assert boxed.cell.volume > 0 and not from_ase(boxed).context


# -- PyG -------------------------------------------------------------------------------------------------------------


def graphs():
    batch = bonds.perceive(molecules(torch.float32))
    return [
        Data(
            pos=p.x,
            z=p.nodes["z"],
            edge_index=p.edge_index,
            bond=p.edges["bond"],
            y=torch.tensor([float(b)]),
            name=NAMES[b],
        )
        for b, p in enumerate(batch.select([b]) for b in range(len(batch)))
    ]


class Held(InMemoryDataset):
    def __init__(self):
        super().__init__(None)
        self.data, self.slices = self.collate(graphs())


def test_lists_and_datasets_are_batched_at_the_door():
    expected = Batch.from_pyg(PygBatch.from_data_list(graphs()))
    for source in (graphs(), tuple(graphs()), Held(), Held()[[0, 1, 2, 3]]):
        batch = Batch.from_pyg(source)
        assert same(batch, expected) and torch.equal(batch.edge_index, expected.edge_index)
        assert batch.context["y"].tolist() == [0, 1, 2, 3] and set(batch.nodes) == {"z"}
    assert Batch.from_pyg(Held()[[2]]).counts.tolist() == [6]
    one = Batch.from_pyg(graphs()[0])
    assert len(one) == 1 and torch.equal(one.x, expected.split()[0])
    back = Batch.from_pyg(expected.to_pyg().to_data_list())
    assert same(back, expected) and torch.equal(back.edge_index, expected.edge_index)


def test_what_lengths_alone_do_not_tell_goes_back_where_it_came_from():
    pairs = from_arrays([np.array([[0, 0, 0], [0.74, 0, 0]])] * 3, z=[[1, 1]] * 3, bonds=[[(0, 1, 2)]] * 3)
    assert len(pairs.x) == pairs.edge_index.shape[1]  # as many atoms as ends of bonds
    mixed = from_arrays(
        [np.array([[0, 0, 0], [0.74, 0, 0]])] * 2 + [np.zeros((1, 3))] * 2,
        z=[[1, 1]] * 2 + [[2]] * 2,
        bonds=[[(0, 1)]] * 2 + [[]] * 2,
        context={"label": [0, 1, 2, 3], "cell": np.arange(36.0).reshape(4, 3, 3)},
    )
    assert len(mixed) == mixed.edge_index.shape[1]  # as many molecules as ends of bonds
    for batch in (pairs, mixed):
        back = Batch.from_pyg(batch.to_pyg())
        assert same(back, batch) and torch.equal(back.edge_index, batch.edge_index)
        assert set(back.context) == set(batch.context)
        assert all(torch.equal(back.context[k], v) for k, v in batch.context.items())


def test_corners_of_three_meshes_are_no_entries_of_graphs():
    face = torch.tensor([[0, 1], [1, 2], [2, 3]])
    with pytest.raises(ValueError, match="'face' .* has neither"):
        Batch.from_pyg([Data(pos=torch.randn(4, 3), face=face) for _ in range(3)])
    index = torch.arange(4)
    assert Batch.from_pyg(Data(pos=torch.randn(4, 3), residue_index=index)).nodes["residue_index"].tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_a_graph_that_says_itself_which_batch_its_nodes_are_of():
    data = Data(pos=torch.randn(5, 3), batch=torch.tensor([0, 0, 1, 1, 1]), y=torch.tensor([1.0, 2.0]))
    batch = Batch.from_pyg(data)
    assert batch.counts.tolist() == [2, 3] and batch.context["y"].tolist() == [1, 2]


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_xyz_opens_in_ase_with_all_digits(tmp_path, dtype):
    batch = replace(
        molecules(dtype), context={"energy": torch.tensor([1.0, 2.0, 3.0, 4.0]), "vector": torch.ones(4, 2)}
    )
    batch = batch.replace(batch.x + torch.randn(batch.x.shape, dtype=dtype, generator=torch.Generator().manual_seed(0)))
    about = {"seed": 3, "run": 'a "b"\nc=d', "density": "per (Å)^D", "skipped": [1, 2]}
    write_xyz(tmp_path / "m.xyz", batch, torch.tensor([-1.25, 0.1, 2e-30, -1e5], dtype=torch.float64), about)
    frames = ase.io.read(tmp_path / "m.xyz", ":")
    for k, (frame, x, log_prob) in enumerate(zip(frames, batch.split(), (-1.25, 0.1, 2e-30, -1e5), strict=True)):
        assert np.array_equal(frame.positions.astype(x.numpy().dtype), x.numpy())
        assert frame.info["log_prob"] == log_prob and frame.info["seed"] == 3 and frame.get_potential_energy() == k + 1
        assert frame.info["run"] == "a 'b' c=d" and frame.info["density"] == "per (Å)^D" and "skipped" not in frame.info
    assert [f.get_chemical_formula() for f in frames] == ["C2H6O", "H", "C2H4", "CHN"]
    assert torch.equal(from_ase(frames, dtype).nodes["z"], batch.nodes["z"])


def test_xyz_keeps_the_lattice(tmp_path):
    crystals = [ase.build.bulk("NaCl", "rocksalt", a=5.6), ase.build.fcc111("Al", (1, 1, 2), vacuum=5.0)]
    write_xyz(tmp_path / "c.xyz", from_ase(crystals, torch.float64))
    for a, b in zip(crystals, ase.io.read(tmp_path / "c.xyz", ":"), strict=True):
        assert np.allclose(a.cell.array, b.cell.array, atol=1e-14) and np.array_equal(a.pbc, b.pbc)


def test_sdf_opens_in_biotite_with_its_bonds(tmp_path):
    from biotite.structure.io.mol import SDFile

    batch = bonds.perceive(molecules())
    write_sdf(tmp_path / "m.sdf", batch, torch.tensor([-1.5, 0.0, 1.0, 2.0]), {"seed": 3})
    records = list(SDFile.read(tmp_path / "m.sdf").values())
    assert len(records) == len(batch)
    for b, record in enumerate(records):
        one, atoms = batch.select([b]), record.get_structure()
        np.testing.assert_allclose(atoms.coord, one.x, atol=6e-5)
        kinds = {(i, j): k for i, j, k in atoms.bonds.as_array().tolist()}
        mine = {
            (i, j): k + 1
            for (i, j), k in zip(one.edge_index.T.tolist(), one.edges["bond"].tolist(), strict=True)
            if i < j
        }
        assert {tuple(sorted(p)): k for p, k in kinds.items()} == mine
        told = {key.name: value for key, value in record.metadata.items()}
        assert float(told["log_prob"]) == [-1.5, 0.0, 1.0, 2.0][b] and told["seed"] == "3"
    # without bonds, those that the distances tell
    write_sdf(tmp_path / "n.sdf", molecules())
    first = (tmp_path / "m.sdf").read_text().split("M  END")[0]
    assert (tmp_path / "n.sdf").read_text().split("M  END")[0] == first


def test_what_a_flow_draws_is_written_whatever_it_is(tmp_path):
    """Two atoms in one place are no molecule, but they are what was drawn."""
    batch = bonds.perceive(molecules())
    collapsed = batch.replace(torch.zeros_like(batch.x))
    for writer, name in ((write_xyz, "z.xyz"), (write_sdf, "z.sdf")):
        writer(tmp_path / name, collapsed)
    assert len(ase.io.read(tmp_path / "z.xyz", ":")) == len(to_ase(collapsed)) == 4
    assert isinstance(to_ase(collapsed)[0], Atoms)


def test_samples_of_a_data_set_go_to_its_formats(tmp_path):
    from scifm.data import load_dataset
    from scifm.samples import write_samples

    clouds = load_dataset("clouds").clouds(n=10, points=(4, 6))
    write_samples(clouds.test, clouds, tmp_path / "c.ply", {"seed": 0})
    assert (tmp_path / "c.ply").read_bytes().startswith(b"ply\n")
    with pytest.raises(ValueError, match=r"written to \.ply or \.npz files"):
        write_samples(clouds.test, clouds, tmp_path / "c.xyz", {})
    batch = bonds.perceive(molecules())
    module = load_dataset("molecules")
    for suffix, writer in module.WRITERS.items():
        writer(tmp_path / f"m{suffix}", batch, torch.zeros(len(batch)), {"scifm": "0", "density": "log_prob in nats."})
    assert len(ase.io.read(tmp_path / "m.xyz", ":")) == len(batch)
