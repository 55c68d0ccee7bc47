"""Samples out as PDB, mmCIF and XYZ: what was written is read again, by us and by others, with its log-densities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from structure_lines import helix, put

from scifm import Batch, checkpoint, verbs
from scifm.cli import main
from scifm.data import Data, structures
from scifm.data.structures import NAMES, WRITERS, read, to_batch
from scifm.recipe import load_recipe
from scifm.run import Run

ABOUT = {"seed": 3, "run": "a run", "solver": "Solver('rk4')", "unit": "Å"}
LOGS = torch.tensor([-12.5, -1234.567890123456, 3e-7], dtype=torch.float64)


def drawn(atoms: str = "ca", dtype: torch.dtype = torch.float32) -> Batch:
    """Three samples of 1, 2 and 7 residues, the last in two chains with a gap."""
    rng = np.random.default_rng(0)
    shape = (lambda n: (n, 3)) if atoms == "ca" else (lambda n: (n, 4, 3))

    def chain(n: int, position: list[int]) -> structures.Chain:
        k = np.arange(n)
        xyz = 3.8 * k[:, None] + rng.normal(size=(n, 3)) if atoms == "ca" else 3.8 * rng.normal(size=shape(n))
        return structures.Chain("x", xyz, (3 * k + n) % 21, np.array(position), k, np.full(n, ""), "A", 0, k)

    return to_batch([chain(1, [0]), chain(2, [0, 1]), [chain(4, [0, 1, 7, 8]), chain(3, [0, 1, 2])]], dtype=dtype)


def write(path: Path, batch: Batch, log_prob: Any = LOGS) -> Path:
    WRITERS[path.suffix](path, batch, log_prob, ABOUT)
    return path


@pytest.mark.parametrize("atoms", ["ca", "backbone"])
@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_gemmi_and_biotite_read_what_was_written(tmp_path, suffix, atoms):
    import gemmi
    from biotite.structure.io.pdb import PDBFile
    from biotite.structure.io.pdbx import CIFFile, get_structure

    batch = drawn(atoms)
    path = write(tmp_path / f"x{suffix}", batch)
    step = 0.0005 if suffix == ".pdb" else 0.00005
    found = gemmi.read_structure(str(path))
    assert len(found) == 3
    nodes = {k: v.numpy() for k, v in batch.nodes.items()}
    index = batch.index.numpy()  # type: ignore[union-attr]
    for k, x in enumerate(batch.split()):
        atoms_there = list(found[k].all())
        assert np.allclose([a.atom.pos.tolist() for a in atoms_there], x, atol=1.01 * step)
        own = {name: v[index == k] for name, v in nodes.items()}
        assert [a.residue.name for a in atoms_there] == [(*NAMES, "UNK")[i] for i in own["residue"]]
        assert [a.residue.seqid.num for a in atoms_there] == (own["position"] + 1).tolist()
        assert [a.chain.name for a in atoms_there] == ["AB"[i] for i in own["chain"]]
        assert [a.atom.name for a in atoms_there] == [
            ("N", "CA", "C", "O")[i] for i in own.get("atom", np.ones(len(x), int))
        ]
        assert all(a.atom.element.name == a.atom.name[0] for a in atoms_there)
        stack: Any = PDBFile.read(path) if suffix == ".pdb" else CIFFile.read(path)
        theirs: Any = stack.get_structure(model=k + 1) if suffix == ".pdb" else get_structure(stack, model=k + 1)
        assert np.allclose(theirs.coord, x, atol=1.01 * step + 1e-6) and len(theirs) == len(x)
        assert theirs.res_id.tolist() == (own["position"] + 1).tolist()


def test_log_densities_stand_in_the_files_to_the_last_digit(tmp_path):
    import gemmi

    pdb = gemmi.read_structure(str(write(tmp_path / "x.pdb", drawn())))
    remarks = [line for line in pdb.raw_remarks if "LOG_PROB " in line]
    assert [line.split()[-2] for line in remarks] == ["1", "2", "3"]
    assert [float(line.split()[-1]) for line in remarks] == LOGS.tolist()
    assert any("seed: 3" in line for line in pdb.raw_remarks)
    assert all(len(line.rstrip()) <= 80 for line in (tmp_path / "x.pdb").read_text().splitlines())
    block = gemmi.cif.read(str(write(tmp_path / "x.cif", drawn()))).sole_block()
    assert [float(v) for v in block.find_values("_scifm_sample.log_prob")] == LOGS.tolist()
    assert gemmi.cif.as_string(block.find_value("_scifm_about.run")) == "a run"
    for suffix in WRITERS:
        assert "log_prob" not in write(tmp_path / f"y{suffix}", drawn(), None).read_text().lower()


@pytest.mark.parametrize("atoms", ["ca", "backbone"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ase_reads_the_xyz_and_nothing_is_lost(tmp_path, atoms, dtype):
    io = pytest.importorskip("ase.io")
    batch = drawn(atoms, dtype)
    frames = io.read(write(tmp_path / "x.xyz", batch), ":")
    assert [f.info["log_prob"] for f in frames] == LOGS.tolist()
    assert [f.info["sample"] for f in frames] == [0, 1, 2] and frames[0].info["seed"] == 3
    for k, (frame, x) in enumerate(zip(frames, batch.split(), strict=True)):
        assert np.array_equal(frame.positions.astype(x.numpy().dtype), x.numpy()) and not frame.pbc.any()
        own = {name: v.numpy()[batch.index.numpy() == k] for name, v in batch.nodes.items()}  # type: ignore[union-attr]
        for name, column in (("residue", "residue"), ("chain", "chain"), ("position", "number"), ("atom", "site")):
            assert name not in own or np.array_equal(frame.arrays[column], own[name])
        assert frame.get_chemical_symbols() == ["NCCO"[i] for i in own.get("atom", np.ones(len(x), int))]


def test_elements_and_plain_points_in_xyz(tmp_path):
    io = pytest.importorskip("ase.io")
    x = torch.arange(12.0).reshape(4, 3)
    molecules = Batch(x, torch.tensor([0, 0, 1, 1]), 2, nodes={"z": torch.tensor([8, 1, 6, 17])})
    frames = io.read(write(tmp_path / "m.xyz", molecules, None), ":")
    assert [f.get_chemical_formula() for f in frames] == ["HO", "CCl"]
    dense = io.read(write(tmp_path / "d.xyz", Batch(x.reshape(2, 2, 3)), None), ":")  # events (n, d) are points
    assert [f.get_chemical_symbols() for f in dense] == [["X", "X"]] * 2
    assert np.array_equal(dense[1].positions, x[2:].numpy())


@pytest.mark.parametrize("atoms", ["ca", "backbone"])
@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_real_chains_come_back_as_they_were(scifm_data, tmp_path, suffix, atoms):
    """Read, write, read: names, residues, gaps and coordinates, to the digits of the format."""
    source = [scifm_data("proteins_bm5") / "pdb" / f"{n}_u.pdb.gz" for n in ("1S1Q_l", "1ACB_l", "3PC8_l")]
    chains, _ = read(source, atoms=atoms, gaps="mask")
    batch = to_batch(chains, centre=False, dtype=torch.float64)
    back, _ = read(write(tmp_path / f"x{suffix}", batch), atoms=atoms, gaps="mask", models="all")
    assert [c.model for c in back] == [0, 1, 2]
    for was, now in zip(chains, back, strict=True):
        assert np.array_equal(was.xyz, now.xyz)  # both have three digits or more
        assert np.array_equal(was.residue, now.residue) and np.array_equal(was.position, now.position)
    again = write(tmp_path / f"y{suffix}", to_batch(back, centre=False, dtype=torch.float64))
    assert again.read_bytes() == (tmp_path / f"x{suffix}").read_bytes()


def test_an_empty_sample_and_no_rows_at_all(tmp_path):
    batch = Batch(torch.zeros(2, 3), torch.tensor([1, 1]), 3)
    for suffix in WRITERS:
        text = write(tmp_path / f"x{suffix}", batch).read_text()
        assert text.count("MODEL ") in (0, 3)
        none = Batch(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 0)
        write(tmp_path / f"y{suffix}", none, torch.zeros(0))
    assert (tmp_path / "x.xyz").read_text().splitlines()[0] == "0"


# -- limits ----------------------------------------------------------------------------------------------


def rows(n: int, value: float = 0.0, **nodes: torch.Tensor) -> Batch:
    return Batch(torch.full((n, 3), value), torch.zeros(n, dtype=torch.long), 1, nodes=nodes)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (rows(1, 10_000.0), "coordinates run from 10000.0 to 10000.0 Å; PDB's columns cannot hold it: write .cif"),
        (rows(1, -1000.0), "coordinates run from -1000.0"),
        (rows(100_000, position=torch.zeros(100_000, dtype=torch.long)), "100000 atoms in a sample"),
        (rows(10_001), "residue numbers run from 1 to 10001"),
        (rows(2, position=torch.tensor([0, 9999])), "residue numbers run from 1 to 10000"),
        (rows(2, chain=torch.tensor([0, 62])), "63 chains in a sample are more than 62"),
        (Batch(torch.zeros(10_000, 1, 3)), "10000 samples are more than 9999 models"),
    ],
)  # fmt: skip
def test_what_pdb_cannot_hold_is_refused_and_mmcif_takes_it(batch, message, tmp_path):
    import gemmi

    with pytest.raises(ValueError, match=message):
        write(tmp_path / "x.pdb", batch, None)
    assert not (tmp_path / "x.pdb").exists()
    if len(batch.points.x) > 20_000:
        return  # it takes seconds
    table = gemmi.cif.read(str(write(tmp_path / "x.cif", batch, None))).sole_block().find("_atom_site.", ["Cartn_x"])
    assert len(table) == len(batch.points.x)


def test_the_widest_that_pdb_holds(tmp_path):
    for value in (9999.999, -999.999):
        (chain,), _ = read(write(tmp_path / "x.pdb", rows(1, value), None))
        assert chain.xyz.reshape(3).tolist() == pytest.approx([value] * 3)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    ("batch", "logs", "message"),
    [
        (Batch(torch.zeros(2, 5, 2)), None, "expected points in space, rows of 3 numbers, got rows of shape"),
        (Batch(torch.tensor([[[0.0, 0, 0]], [[0, math.nan, 0]]])), None, "1 samples hold NaN or infinity"),
        (rows(2), torch.zeros(3), "expected one number per sample"),
        (rows(2, residue=torch.tensor([0, 21])), None, "'residue'. must be 0 .. 20, got 0 .. 21"),
        (rows(2, atom=torch.tensor([0, -1])), None, "'atom'. must be 0 .. 3, got -1 .. 0"),
    ],
)  # fmt: skip
def test_what_is_no_structure_is_refused(suffix, batch, logs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / f"x{suffix}", batch, logs)
    assert not list(tmp_path.iterdir())


# -- the command line ------------------------------------------------------------------------------------

RECIPE = '''"""Chains."""
from __future__ import annotations
from pathlib import Path
import torch
from scifm import Flow, Recipe, priors
from scifm.data import Data, structures

class Bend(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(0.5))
    def forward(self, t, x, batch):
        return self.strength * torch.tanh(x)

def recipe(*, path: Path = Path("two.pdb")):
    chains, report = structures.read(path)
    batch = structures.to_batch(chains)
    data = Data("two", batch, batch, batch, unit="Å", files=(path,), writers=structures.WRITERS, summary=str(report))
    return Recipe(Flow(Bend(), priors.Gaussian(std=5.0)), data)
'''

FEW = ["--method", "rk4", "--steps", "2", "--chunk", "2", "--threads", "1"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "two.pdb", *helix(5), *helix(3, chain="B", shift=30.0))
    (tmp_path / "chains.py").write_text(RECIPE)
    file = load_recipe("chains.py")
    recipe = file.build({})
    folder = Run.create(Path("a"), file, {}, recipe.data.files, seed=5, status="finished").folder
    state = recipe.flow.state_dict()
    tensors = {f"ema.{k}": v for k, v in state.items()} | {f"model.{k}": v for k, v in state.items()}
    checkpoint.save(folder / "checkpoints", 10, tensors, {})
    return tmp_path


def test_scifm_sample_writes_what_the_user_brought(run: Path, capsys) -> None:
    import gemmi

    words = ["sample", "a", "-n", "5", "--log-prob", *FEW]
    for suffix in (".npz", ".pdb", ".cif", ".xyz"):
        assert main([*words, "-o", f"x{suffix}"]) == 0
        assert capsys.readouterr().out == f"x{suffix}\n"
    with np.load("x.npz", allow_pickle=False) as file:
        x, logs, counts = file["x"], file["log_prob"], file["count"]
    assert counts.tolist() == [5, 3, 5, 3, 5] and logs.std() > 0.01
    for suffix in (".pdb", ".cif"):
        found = gemmi.read_structure(f"x{suffix}")
        assert np.allclose([a.atom.pos.tolist() for m in found for a in m.all()], x, atol=6e-4)
    remarks = [line for line in gemmi.read_pdb("x.pdb").raw_remarks if "LOG_PROB " in line]
    assert [float(line.split()[-1]) for line in remarks] == logs.tolist()
    told = "\n".join(gemmi.read_pdb("x.pdb").raw_remarks)
    assert "seed: 5" in told and "trace: exact" in told
    assert "per (Angstrom)^D" in told.replace("\nREMARK 950 ", "")  # PDB is ASCII
    assert sorted(p.name for p in run.iterdir() if "x." in p.name) == ["x.cif", "x.npz", "x.pdb", "x.xyz"]
    assert main([*words, "-o", "x.pdb"]) == 2 and "x.pdb exists; give --overwrite" in capsys.readouterr().err
    plain = ["sample", "a", "-n", "5", *FEW]
    assert main([*plain, "-o", "y.pdb"]) == 0 and "LOG_PROB" not in Path("y.pdb").read_text()
    assert main(plain) == 0 and Path("a/samples-5-seed-5.npz").exists()  # the default keeps every digit


def test_the_suffixes_on_offer_are_listed(run: Path, capsys) -> None:
    before = sorted(run.iterdir())
    for name in ("x.nc", "x.ply", "x.PDB"):
        assert main(["sample", "a", "-o", name, *FEW]) == 2
        assert f"written to .pdb, .cif, .xyz or .npz files, got '{name}'" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ".npz, or what the data offer: .nc or .zarr for grids, .pdb, .cif, .xyz for proteins" in said


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(path: Path, batch: Batch, log_prob: Any, about: Any) -> None:
        path.write_text("half of")
        raise ValueError("no room for these numbers")

    batch = drawn()
    data = Data("x", batch, batch, batch, writers={".pdb": fails})
    with pytest.raises(ValueError, match="no room for these numbers"):
        verbs.write_samples(batch, data, tmp_path / "x.pdb", {})
    assert not list(tmp_path.iterdir())
    assert verbs.output(tmp_path / "x", data).name == "x.npz"


def test_a_writer_gets_all_chunks_at_once_with_what_they_are(tmp_path: Path) -> None:
    got: list[Any] = []
    batch = drawn()
    writers = {".ply": lambda *given: (given[0].write_text("ok"), got.append(given))}
    data = Data("x", batch, batch, batch, unit="Å", writers=writers)  # type: ignore[arg-type]
    chunks = [verbs.Drawn(batch.select([0, 1]), LOGS[:2]), verbs.Drawn(batch.select([2]), LOGS[2:])]
    verbs.write_chunks(lambda: chunks, data, tmp_path / "x.ply", {"seed": 1})
    ((path, whole, logs, about),) = got
    assert path.suffix == ".ply" and path.parent == tmp_path and not path.exists()  # it was moved
    assert torch.equal(whole.x, batch.x) and whole.counts.tolist() == batch.counts.tolist()
    assert torch.equal(logs, LOGS) and about["seed"] == 1 and "per (Å)^D" in about["density"]
    assert (tmp_path / "x.ply").read_text() == "ok"


@pytest.mark.parametrize(
    ("writers", "error", "message"),
    [
        ({"pdb": print}, ValueError, "named by a suffix such as '.pdb', got 'pdb'"),
        ({".PDB": print}, ValueError, "got '.PDB'"),
        ({".pdb.gz": print}, ValueError, "got '.pdb.gz'"),
        ({".npz": print}, ValueError, ".npz is there for all data"),
        ({".nc": print}, ValueError, ".nc and .zarr for those with an export"),
        ({".pdb": "pdb"}, TypeError, "the writer of .pdb must be a function .*got str"),
    ],
)
def test_writers_that_are_none(writers, error, message):
    batch = drawn()
    with pytest.raises(error, match=message):
        Data("x", batch, batch, batch, writers=writers)
