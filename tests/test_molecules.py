"""Small molecules: biotite's dictionary against its own reader, splits without twins, caches, PyG's sets."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import torch
from torch_geometric.data import Data as Graph

from scifm.data import fetch, load_dataset
from scifm.data.ase import from_ase
from scifm.data.bonds import bonds_agree, perceive
from scifm.data.components import COORDINATES, dictionary, read_components
from scifm.data.constitution import constitution
from scifm.data.molecules import check_molecules, keep_atoms

module = load_dataset("molecules")
SOME = """
ALA DAL BNZ EOH GLC BGC HOH HEM ZN CYN SER DSN PHE URE GOL ACT TRS PYR LAC 2OP MOH DMS ACN IPA BU1 THR DTH VAL DVA SO4
PO4 NO3 TAU IMD PYZ FMT CIT MLA OXL SIN GLY CYS DCY PRO DPR MET MED ASN DSG UNX UNL 1HA 00B
""".split()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A dictionary of the compounds above, cut from biotite's."""
    from biotite.structure.io import pdbx

    block = pdbx.BinaryCIFFile.read(dictionary()).block
    small = pdbx.BinaryCIFBlock()
    places = [c.format(k) for c in COORDINATES.values() for k in "xyz"]
    wanted = {
        "chem_comp": ("id", ["id", "pdbx_release_status"]),
        "chem_comp_atom": ("comp_id", ["comp_id", "atom_id", "type_symbol", *places]),
        "chem_comp_bond": ("comp_id", ["comp_id", "atom_id_1", "atom_id_2", "value_order", "pdbx_aromatic_flag"]),
    }
    for name, (key, columns) in wanted.items():
        rows = np.isin(block[name][key].as_array(), SOME)
        kept = {}
        for column in columns:
            found = block[name][column]
            mask = None if found.mask is None else found.mask.array[rows]
            kept[column] = pdbx.BinaryCIFColumn(found.as_array()[rows], mask)
        small[name] = pdbx.BinaryCIFCategory(kept)
    file = pdbx.BinaryCIFFile()
    file["components"] = small
    path = tmp_path_factory.mktemp("dictionary") / "small.bcif"
    file.write(path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scifm" / "molecules"


WANT = module.Wanted(1, 64, module.ELEMENTS, True)


# -- the dictionary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ALA", "BNZ", "GLC", "HEM", "CYN", "ZN", "PO4"])
def test_components_are_what_biotite_reads(small, name):
    from biotite.structure import BondType
    from biotite.structure.info import residue

    found, known = read_components(small), residue(name)
    one = found.batch.select([found.ids.index(name)])
    np.testing.assert_allclose(one.x.numpy(), known.coord, atol=1e-6)
    assert [s.upper() for s in known.element] == [module.SYMBOLS[z].upper() for z in one.nodes["z"].tolist()]
    classes = {BondType.SINGLE: 0, BondType.DOUBLE: 1, BondType.TRIPLE: 2}
    told = {}
    for i, j, kind in known.bonds.as_array().tolist():
        told[i, j] = told[j, i] = classes.get(BondType(kind), 3)
    mine = dict(zip(map(tuple, one.edge_index.T.tolist()), one.edges["bond"].tolist(), strict=True))
    assert mine == told


def test_aromatic_rings_are_aromatic(small):
    found = read_components(small)
    ring = found.batch.select([found.ids.index("BNZ")])
    kinds = ring.edges["bond"]
    assert torch.bincount(kinds).tolist() == [12, 0, 0, 12]
    assert (ring.nodes["z"][ring.edge_index[:, kinds == 3]] == 6).all()


def test_model_coordinates_are_others_of_the_same_molecule(small):
    ideal, model = (read_components(small, kind) for kind in ("ideal", "model"))
    assert ideal.ids == model.ids and torch.equal(ideal.batch.nodes["z"], model.batch.nodes["z"])
    k = ideal.ids.index("PHE")
    a, b = ideal.batch.select([k]), model.batch.select([k])
    assert (a.x - b.x).abs().max() > 1 and bonds_agree(a) and bonds_agree(b)


def test_every_component_of_the_whole_dictionary_is_read():
    whole = read_components()
    batch = whole.batch
    assert len(batch) == len(set(whole.ids)) > 40_000 and sorted(whole.ids) == list(whole.ids)
    # both directions of each bond, none of an atom with itself, none between two molecules (Batch checks the last)
    rows, (first, second) = len(batch.x), batch.edge_index
    assert torch.equal((first * rows + second).sort().values, (second * rows + first).sort().values)
    assert (first != second).all()
    share = float(bonds_agree(organic(batch)).double().mean())
    assert share > 0.98


def organic(batch):
    finite = batch.total((~batch.x.isfinite()).double()) == 0
    light = batch.total((~torch.isin(batch.nodes["z"], torch.tensor([1, 6, 7, 8]))).double()[:, None]) == 0
    return batch.select((finite & light & (batch.counts > 2)).nonzero()[::40, 0])


# -- the data set ----------------------------------------------------------------------------------------------------


def test_what_is_kept_is_whole_centred_and_bonded(small, cache):
    found, files = module.ccd(WANT, path=small)
    batch = check_molecules(found.batch)
    assert bonds_agree(batch).all() and files == (cache / f"ccd-ideal-{WANT.key}.npz",)
    assert batch.x.dtype == torch.float32 and not batch.context
    means = torch.zeros(len(batch), 3).index_add(0, batch.index, batch.x) / batch.counts[:, None]
    assert means.abs().max() < 1e-5
    original = read_components(small)
    ala = batch.select([found.names.index("ALA")])
    before = original.batch.select([original.ids.index("ALA")])
    shift = ala.x - before.x
    assert (shift - shift[0]).abs().max() < 1e-5 and shift.abs().max() > 0.01


def test_report_adds_up_and_names_reasons(small, cache):
    found, _ = module.ccd(WANT, path=small)
    numbers = [int(w) for w in found.report.replace("kept ", "").split() if w.isdigit()]
    assert (
        numbers[0] == len(found.names) == len(found.batch) and numbers[1] == len(set(SOME)) == sum(numbers) - numbers[1]
    )
    assert found.report.endswith("1 without atoms; 1 with missing coordinates; 2 with metals; 1 too large")
    assert not {"ZN", "HEM", "UNX"} & set(found.names)


def test_compounds_of_one_skeleton_share_their_split(small, cache):
    found, _ = module.ccd(WANT, path=small)
    split = dict(zip(found.names, found.split.tolist(), strict=True))
    for left, right in (("ALA", "DAL"), ("SER", "DSN"), ("THR", "DTH"), ("VAL", "DVA"), ("PRO", "DPR"), ("GLC", "BGC")):
        assert split[left] == split[right]
    key = constitution(keep_atoms(found.batch, found.batch.nodes["z"] != 1))
    groups = [set(key[found.split == k].tolist()) for k in range(3)]
    assert not groups[0] & groups[2] and not groups[0] & groups[1] and not groups[1] & groups[2]


def test_filters_do_not_move_a_molecule_to_another_split(small, cache):
    wide, _ = module.ccd(WANT, path=small)
    home = dict(zip(wide.names, wide.split.tolist(), strict=True))
    narrow, _ = module.ccd(module.Wanted(5, 30, "H C N O", True), path=small)
    heavy, _ = module.ccd(module.Wanted(1, 64, module.ELEMENTS, False), path=small)
    assert 10 < len(narrow.names) < len(wide.names)
    for other in (narrow, heavy):
        assert all(home.get(name, k) == k for name, k in zip(other.names, other.split.tolist(), strict=True))
    assert (
        not (heavy.batch.nodes["z"] == 1).any() and narrow.batch.counts.min() >= 5 and narrow.batch.counts.max() <= 30
    )


def test_the_kept_selection_is_the_fresh_one_and_follows_the_dictionary(small, cache, tmp_path):
    from biotite.structure.io import pdbx

    fresh, files = module.ccd(WANT, path=small)
    stamp = files[0].stat().st_mtime_ns
    again, _ = module.ccd(WANT, path=small)
    assert files[0].stat().st_mtime_ns == stamp
    for a, b in ((fresh.batch.x, again.batch.x), (fresh.batch.index, again.batch.index), (fresh.split, again.split),
                 (fresh.batch.edge_index, again.batch.edge_index), (fresh.batch.nodes["z"], again.batch.nodes["z"]),
                 (fresh.batch.edges["bond"], again.batch.edges["bond"])):  # fmt: skip
        assert torch.equal(a, b) and a.dtype == b.dtype
    assert (fresh.names, fresh.report) == (again.names, again.report)
    changed = pdbx.BinaryCIFFile.read(small)  # another dictionary: what was kept is of no use
    status = changed.block["chem_comp"]["pdbx_release_status"].as_array().copy()
    status[list(fresh.names).index("BNZ")] = "OBS"
    changed.block["chem_comp"]["pdbx_release_status"] = pdbx.BinaryCIFColumn(status)
    changed.write(tmp_path / "other.bcif")
    newer, _ = module.ccd(WANT, path=tmp_path / "other.bcif")
    assert len(newer.names) == len(fresh.names) - 1 and "1 obsolete" in newer.report


def test_a_run_s_own_copy_comes_first_and_needs_no_dictionary(small, cache, tmp_path):
    found, files = module.ccd(WANT, path=small)
    (tmp_path / "run" / "molecules").mkdir(parents=True)
    copy = tmp_path / "run" / "molecules" / files[0].name
    copy.write_bytes(files[0].read_bytes())
    token = fetch.search_path.set((tmp_path / "run",))
    try:
        mine, places = module.ccd(WANT, path=tmp_path / "no such dictionary")
    finally:
        fetch.search_path.reset(token)
    assert places == (copy,) and torch.equal(mine.batch.x, found.batch.x)


def test_a_cache_that_cannot_be_written_costs_nothing_else(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found, files = module.ccd(WANT, path=small)
    assert files == () and len(found.names) > 30


def test_turned_molecules_are_the_same_molecules(small, cache, monkeypatch):
    monkeypatch.setattr(module, "dictionary", lambda: small)
    plain, turned = (module.molecules(turn=t) for t in (False, True))
    assert plain.unit == "Å" and "left out" in plain.summary and set(plain.writers) == {".xyz", ".sdf"}
    for a, b in ((plain.train, turned.train), (plain.test, turned.test)):
        for x, y in zip(a.split(), b.split(), strict=True):
            torch.testing.assert_close(torch.cdist(x, x), torch.cdist(y, y), atol=1e-4, rtol=0)
            if len(x) > 3 and torch.linalg.matrix_rank(x, tol=0.1) == 3:  # no mirror image
                turn = torch.linalg.lstsq(x.double(), y.double()).solution
                assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-3)
        assert not torch.allclose(a.x, b.x)


# -- QM7 -------------------------------------------------------------------------------------------------------------


def test_qm7_has_bonds_and_its_splits_share_no_molecule(scifm_data):
    path = scifm_data("qm7") / "qm7.npz"
    data = module.molecules("qm7")
    parts = (data.train, data.valid, data.test)
    assert sum(map(len, parts)) == 7101 and data.files == (path,)
    keys = [set(constitution(p).tolist()) for p in parts]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    with np.load(path, allow_pickle=False) as file:
        assert int(file["n_atoms"].sum()) == sum(len(p.x) for p in parts)


# -- torch-geometric's sets ------------------------------------------------------------------------------------------


class FakeQM9(list):
    """Ethanol, methane and water with PyG's fields, many times over."""

    def __init__(self, root):
        import ase.build

        super().__init__()
        for k in range(60):
            atoms = ase.build.molecule(["CH3CH2OH", "CH4", "H2O"][k % 3])
            bonded = perceive(from_ase(atoms))
            one_hot = torch.nn.functional.one_hot(bonded.edges["bond"], 4).float()
            rest = {"x": torch.zeros(len(atoms), 11), "y": torch.zeros(1, 19), "smiles": "C", "idx": torch.tensor([k])}
            graph = {"pos": bonded.x.float() + k, "z": bonded.nodes["z"], "edge_index": bonded.edge_index}
            self.append(Graph(**graph, edge_attr=one_hot, name=f"gdb_{k}", **rest))


def test_qm9_is_converted_with_its_bonds(monkeypatch, tmp_path):
    monkeypatch.setattr("torch_geometric.datasets.QM9", FakeQM9)
    batch = module.pyg_molecules(FakeQM9(tmp_path))
    assert len(batch) == 60 and not batch.context and set(batch.nodes) == {"z"} and set(batch.edges) == {"bond"}
    check_molecules(batch)
    assert bonds_agree(batch).all()
    with pytest.raises(ValueError, match="none fell into"):  # three molecules are too few to split
        module.qm9(WANT, tmp_path)
    monkeypatch.setattr(module, "constitution", lambda b: torch.arange(len(b)))
    found = module.qm9(WANT, tmp_path)
    assert len(found.names) == 60 and found.split.unique().tolist() == [0, 1, 2]
    assert found.names[0] == "gdb_0" and found.batch.x.abs().max() < 5


class FakeMD17(list):
    file_names = {"aspirin": "", "ethanol": "", "aspirin CCSD": ""}

    def __init__(self, root, name):
        super().__init__()
        start = FakeQM9(root)[0]
        for k in range(500):
            wiggle = 0.02 * torch.randn(len(start.z), 3, generator=torch.Generator().manual_seed(k))
            self.append(
                Graph(
                    pos=start.pos + wiggle, z=start.z, energy=torch.tensor([float(k)]), force=torch.zeros_like(wiggle)
                )
            )


def test_md17_is_cut_in_time_with_gaps(monkeypatch, tmp_path):
    monkeypatch.setattr("torch_geometric.datasets.MD17", FakeMD17)
    found = module.md17(WANT, "ethanol", tmp_path)
    check_molecules(found.batch)
    frames = {k: (found.split == k).nonzero()[:, 0] for k in (-1, 0, 1, 2)}
    assert frames[0].max() < frames[1].min() - 4 and frames[1].max() < frames[2].min() - 4
    assert [len(frames[k]) for k in (0, 1, 2)] == [395, 45, 50] and found.batch.edge_index.shape[1] == 500 * 16
    one = found.batch.select([499])
    assert torch.equal(one.edge_index, perceive(one).edge_index)
    data = module.molecules("md17:ethanol", hydrogens=False)
    assert len(data.train) == 395 and data.train.event == (3,) and (data.train.counts == 3).all()


@pytest.mark.parametrize("source", ["qm9", "md17", "md17:ethanol"])
def test_without_a_network_the_cure_is_named(monkeypatch, cache, source):
    class Offline:
        file_names = FakeMD17.file_names

        def __init__(self, *args):
            raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch_geometric.datasets.QM9", Offline)
    monkeypatch.setattr("torch_geometric.datasets.MD17", Offline)
    with pytest.raises(FileNotFoundError, match="not on this machine.*Load it once where there is a network"):
        module.molecules(source)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: module.molecules("qm8"), "there is no source 'qm8'"),
        (lambda: module.molecules("qm9:ethanol"), "there is no source 'qm9:ethanol'"),
        (lambda: module.molecules("md17:caffeine"), "no trajectory of 'caffeine'"),
        (lambda: module.molecules("qm7", coordinates="model"), "one set of coordinates"),
        (lambda: module.molecules(coordinates="best"), 'must be "ideal" or "model"'),
        (lambda: module.molecules(elements="C Xy"), "'Xy' is no chemical element"),
        (lambda: module.ccd(module.Wanted(9, 3, "C", True)), "1 <= min_atoms <= max_atoms"),
        (lambda: module.molecules(max_atoms=2), "molecules: expected 1 <= min_atoms <= max_atoms, got 3 and 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(small, cache, monkeypatch, call, message):
    monkeypatch.setattr(module, "dictionary", lambda: small)
    with pytest.raises(ValueError, match=message):
        call()


def test_a_file_that_is_no_dictionary_is_refused(tmp_path, small):
    from biotite.structure.io import pdbx

    (tmp_path / "text.bcif").write_text("data_")
    with pytest.raises(ValueError, match="no readable BinaryCIF"):
        read_components(tmp_path / "text.bcif")
    file = pdbx.BinaryCIFFile.read(small)
    del file.block["chem_comp_bond"]
    file.write(tmp_path / "half.bcif")
    with pytest.raises(ValueError, match="no table chem_comp_bond"):
        read_components(tmp_path / "half.bcif")
    file = pdbx.BinaryCIFFile.read(small)
    names = file.block["chem_comp_bond"]["atom_id_1"].as_array().copy()
    names[0] = "QQ"
    file.block["chem_comp_bond"]["atom_id_1"] = pdbx.BinaryCIFColumn(names)
    file.write(tmp_path / "lost.bcif")
    with pytest.raises(ValueError, match="1 entries of .* name a compound or an atom that it does not hold"):
        read_components(tmp_path / "lost.bcif")
