"""Conformations of one molecule: models and trajectories agree, poses are turned, splits keep apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from structure_lines import atom, helix, put

from scifm.data import fetch, load_dataset
from scifm.data.structures import Ensemble, Report, read_ensemble


def test_models_are_those_of_the_arrays(scifm_data):
    folder = scifm_data("protein_ensembles")
    with np.load(folder / "ensembles_ca.npz", allow_pickle=False) as file:
        wanted = {k: file[k] for k in file}
    files = {"2k39_ca_116models.pdb": "ubiquitin_2k39", "1l2y.pdb": "trpcage_1l2y", "1gya.bcif": "cd2_1gya"}
    for name, key in files.items():
        ensemble = read_ensemble(folder / name)
        assert np.allclose(ensemble.xyz, wanted[key], atol=1e-4) and not ensemble.ordered, name
        assert ensemble.report.dropped.get("models beyond the first") is None
    assert len(read_ensemble(folder / "2k39_ca_116models.pdb")) == 116


@pytest.mark.parametrize("atoms", ["ca", "backbone"])
def test_a_trajectory_is_its_models_from_every_format(scifm_data, tmp_path, atoms):
    from biotite.structure.io.dcd import DCDFile
    from biotite.structure.io.trr import TRRFile
    from biotite.structure.io.xtc import XTCFile

    folder = scifm_data("protein_ensembles")
    models = {s: read_ensemble(folder / f"1l2y.{s}", atoms=atoms) for s in ("pdb", "cif", "bcif")}
    pdb = models["pdb"]
    assert pdb.xyz.shape == ((38, 20, 3) if atoms == "ca" else (38, 20, 4, 3))
    assert all(np.array_equal(m.xyz, pdb.xyz) for m in models.values())
    xtc = read_ensemble(folder / "1l2y.xtc", folder / "1l2y.pdb", atoms=atoms)
    assert xtc.ordered and xtc.xyz.shape == pdb.xyz.shape and np.abs(xtc.xyz - pdb.xyz).max() < 0.01
    coord = XTCFile.read(str(folder / "1l2y.xtc")).get_coord()
    for kind, suffix in ((DCDFile, "dcd"), (TRRFile, "trr")):
        file = kind()
        file.set_coord(coord)
        file.write(str(tmp_path / f"a.{suffix}"))
        same = read_ensemble(tmp_path / f"a.{suffix}", folder / "1l2y.bcif", atoms=atoms)
        assert np.allclose(same.xyz, xtc.xyz, atol=1e-4), suffix
    both = read_ensemble([tmp_path / "a.dcd", folder / "1l2y.xtc"], folder / "1l2y.cif", atoms=atoms, stride=5)
    assert np.allclose(both.xyz, np.concatenate([xtc.xyz[::5]] * 2), atol=1e-4)
    assert [f.name for f in both.files] == ["1l2y.cif", "a.dcd", "1l2y.xtc"]


def test_the_rows_of_a_trajectory_are_those_of_the_file(tmp_path):
    """Waters first, two chains in turns, the order of the topology: nothing may be taken for what it is not."""
    from biotite.structure.io.dcd import DCDFile

    waters = [atom("O", "HOH", 900 + i, (50.0, i, 0)) for i in range(3)]
    a, b = helix(4), helix(4, chain="B", shift=30.0)
    mixed = [line for i in range(4) for part in (a, b) for line in part[4 * i : 4 * i + 4]]
    top = put(tmp_path / "top.pdb", *waters, *mixed)
    xyz = np.array([[float(x[k : k + 8]) for k in (30, 38, 46)] for x in [*waters, *mixed]])
    file = DCDFile()
    file.set_coord(np.stack([xyz, xyz + 1.0]).astype(np.float32))
    file.write(str(tmp_path / "a.dcd"))
    ensemble = read_ensemble(tmp_path / "a.dcd", top, atoms="backbone")
    assert [len(c) for c in ensemble.chains] == [4, 4] and ensemble.report.dropped == {"water molecules": 3}
    assert np.allclose(ensemble.xyz[0], np.concatenate([c.xyz for c in ensemble.chains]), atol=1e-5)
    assert np.allclose(ensemble.xyz[1], ensemble.xyz[0] + 1.0, atol=1e-5)


def test_models_of_other_hydrogens_are_still_one_molecule(tmp_path):
    first = [*helix(4), atom("H", "ALA", 4, (1, 1, 9), element="H")]
    lines = ["MODEL        1", *first, "ENDMDL", "MODEL        2", *helix(4, shift=1.0), "ENDMDL"]
    ensemble = read_ensemble(put(tmp_path / "a.pdb", *lines))
    assert np.allclose(ensemble.xyz[1] - ensemble.xyz[0], 1.0, atol=2e-3)


def test_a_batch_of_conformations(scifm_data):
    ensemble = read_ensemble(scifm_data("protein_ensembles") / "1l2y.pdb", atoms="backbone")
    batch = ensemble.batch([3, 0], centre=False, dtype=torch.float64)
    assert batch.counts.tolist() == [80, 80] and set(batch.nodes) == {"residue", "chain", "position", "atom"}
    assert np.array_equal(batch.x.numpy().reshape(2, 20, 4, 3), ensemble.xyz[[3, 0]])
    assert torch.equal(batch.nodes["position"], torch.arange(20).repeat_interleave(4).repeat(2))
    whole = ensemble.batch()
    assert len(whole) == 38 and whole.x.dtype == torch.float32
    assert all(x.mean(0).abs().max() < 1e-5 for x in whole.split())


# -- poses -----------------------------------------------------------------------------------------------


def poses(xyz: np.ndarray) -> Ensemble:
    return Ensemble((), xyz, False, (), Report(1, 1, xyz.shape[1], {}, {}))


def test_conformations_are_chosen_by_number_or_by_a_bool_each(tmp_path):
    models = [line for k in range(4) for line in (f"MODEL     {k + 1:4d}", *helix(4, shift=k), "ENDMDL")]
    ensemble = read_ensemble(put(tmp_path / "a.pdb", *models))
    wanted = ensemble.batch([1, -1], centre=False)
    for chosen in (np.array([False, True, False, True]), torch.tensor([1, 3]), (1, 3)):
        assert torch.equal(ensemble.batch(chosen, centre=False).x, wanted.x)
    assert len(ensemble.batch([])) == 0


def test_superposition_undoes_a_rotation_and_never_mirrors():
    rng = np.random.default_rng(0)
    onto = rng.normal(size=(7, 3))
    for n in (7, 3, 2, 1):
        target = onto[:n] - onto[:n].mean(0)
        turns = np.linalg.qr(rng.normal(size=(20, 3, 3)))[0]
        turns *= np.sign(np.linalg.det(turns))[:, None, None]
        found = poses(target @ turns + rng.normal(size=(20, 1, 3))).superposed(onto[:n]).xyz
        assert np.allclose(found, target, atol=1e-10), n
    mirrored = poses(onto[None] * [1, 1, -1]).superposed(onto).xyz[0]
    d = onto - onto.mean(0)
    assert not np.allclose(mirrored, d, atol=0.1)  # a mirror image cannot be turned onto its original
    assert np.linalg.det(mirrored.T @ d) < 0


def test_superposed_models_lie_nearer_and_keep_their_shape(scifm_data):
    import biotite.structure as struc

    ensemble = read_ensemble(scifm_data("protein_ensembles") / "1l2y.pdb")
    turned = ensemble.turned(np.random.default_rng(1))
    back = turned.superposed()

    def distances(xyz: np.ndarray) -> np.ndarray:
        return np.linalg.norm(xyz[:, :, None] - xyz[:, None], axis=-1)

    def rmsd(e) -> np.ndarray:
        return np.sqrt(((e.xyz - e.xyz[0]) ** 2).sum(-1).mean(-1))

    for other in (turned, back):
        assert np.allclose(distances(other.xyz), distances(ensemble.xyz), atol=1e-8)
    assert rmsd(turned)[1:].min() > rmsd(back).max()
    theirs, _ = struc.superimpose(ensemble.xyz[0], ensemble.xyz[1:])
    assert np.allclose(rmsd(back)[1:], struc.rmsd(ensemble.xyz[0], theirs), atol=1e-6)


def test_random_poses_are_uniform_and_proper(tmp_path):
    lines = [line for k in range(2) for line in (f"MODEL {k + 1:8d}", *helix(4), "ENDMDL")]
    ensemble = read_ensemble(put(tmp_path / "a.pdb", *lines))
    many = type(ensemble)(ensemble.chains, np.repeat(ensemble.xyz, 4000, 0), False, (), ensemble.report)
    turned = many.turned(np.random.default_rng(0)).xyz
    x = many.xyz[0] - many.xyz[0].mean(0)
    assert np.abs(turned.mean(0)).max() < 0.1  # no direction is preferred
    want = np.trace(x.T @ x) / 3 * np.eye(3)
    assert np.abs(np.einsum("kni,knj->ij", turned, turned) / len(turned) - want).max() < 0.02 * want[0, 0]
    frames = np.linalg.lstsq(x, turned.transpose(1, 0, 2).reshape(4, -1), rcond=None)[0].reshape(3, -1, 3)
    assert (np.linalg.det(frames.transpose(1, 0, 2)) > 0).all()


# -- the data set ----------------------------------------------------------------------------------------


def test_ubiquitin_in_three_parts_by_one_word(scifm_data):
    scifm_data("protein_ensembles")
    make = load_dataset("protein_ensembles").protein_ensembles
    data = make()
    assert data.unit == "Å" and [len(b) for b in (data.train, data.valid, data.test)] == [81, 12, 23]
    assert data.train.event == (3,) and set(data.train.counts.tolist()) == {76}
    assert [p.name for p in data.files] == ["2k39_ca_116models.pdb"] and set(data.writers) == {".pdb", ".cif", ".xyz"}
    assert "81 training, 12 validation and 23 test models of 2k39_ca_116models.pdb, 76 residues" in data.summary
    every = torch.cat([b.x.reshape(-1, 76 * 3) for b in (data.train, data.valid, data.test)])
    assert len(every.unique(dim=0)) == 116  # nobody is in two parts
    assert torch.equal(make().train.x, data.train.x) and not torch.equal(make(seed=1).train.x, data.train.x)
    turned, laid = make(pose="random"), make(pose="superposed")
    assert not torch.allclose(turned.train.x, data.train.x) and not torch.allclose(laid.train.x, data.train.x)
    assert torch.allclose(laid.train.split()[0], data.train.split()[0], atol=1e-5)  # onto the first of training


def test_a_trajectory_is_cut_in_blocks_of_time(scifm_data):
    folder = scifm_data("protein_ensembles")
    module = load_dataset("protein_ensembles")
    data = module.protein_ensembles(folder / "1l2y.xtc", folder / "1l2y.pdb", atoms="backbone")
    assert "frames in blocks of time of 1l2y.xtc" in data.summary and set(data.train.counts.tolist()) == {80}
    for count in (10, 38, 399, 2000, 10_001):
        rows = module.split_frames(count)
        sizes = {k: len(v) / count for k, v in rows.items()}
        assert sizes["train"] > 0.55 and sizes["valid"] > 0.05 and sizes["test"] >= 0.1
        owner = np.full(count, -1)
        for k, name in enumerate(rows):
            assert (owner[rows[name]] == -1).all()
            owner[rows[name]] = k
        change = np.flatnonzero(np.diff(owner) != 0)
        between = owner[change] * owner[change + 1]
        blocks = min(10, max(1, count // module.BLOCK))
        # training and validation, validation and test, and blocks are never next to each other
        pairs = {(int(a), int(b)) for a, b in zip(owner[change], owner[change + 1], strict=True)}
        assert all(-1 in p for p in pairs), (count, pairs, between)
        assert (np.diff(np.flatnonzero(owner == 2)) > 1).sum() == blocks - 1


def test_what_cannot_be_split_is_refused(scifm_data, tmp_path):
    module = load_dataset("protein_ensembles")
    lines = [line for k in range(9) for line in (f"MODEL {k + 1:8d}", *helix(4), "ENDMDL")]
    with pytest.raises(ValueError, match="9 conformations cannot be split in three; expected at least 10"):
        module.protein_ensembles(put(tmp_path / "a.pdb", *lines))
    with pytest.raises(ValueError, match="pose must be given, superposed or random, got 'upright'"):
        module.protein_ensembles(pose="upright")


def test_without_files_the_message_tells_how_to_get_some(tmp_path, monkeypatch):
    monkeypatch.delenv("SCIFM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = load_dataset("protein_ensembles")
    monkeypatch.setattr(module, "URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(FileNotFoundError, match=r"Or give path=, any structure file with several models.*rcsb"):
        module.protein_ensembles()


def test_the_file_is_downloaded_once_and_checked(scifm_data, tmp_path, monkeypatch):
    source = scifm_data("protein_ensembles") / "2k39_ca_116models.pdb"
    monkeypatch.delenv("SCIFM_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = load_dataset("protein_ensembles")
    monkeypatch.setattr(module, "URL", source.as_uri())
    data = module.protein_ensembles()
    assert data.files == (fetch.cache() / "protein_ensembles" / source.name,) and len(data.train) == 81
    shutil.rmtree(tmp_path / "scifm")
    other = put(tmp_path / "other.pdb", *helix(4))
    monkeypatch.setattr(module, "URL", Path(other).as_uri())
    with pytest.raises(ValueError, match="gave a file of another content"):
        module.protein_ensembles()
