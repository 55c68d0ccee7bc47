"""The recipes of points: trained, sampled, scored, resumed by the command line; read by the programs of the field."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

import scifm.train
from scifm.cli import main
from scifm.data import load_dataset
from scifm.recipe import load_recipe
from scifm.run import Run

TINY = ["--width", "16", "--steps", "4", "--batch-size", "4", "--test-samples", "3"]
RUN = ["--threads", "1", "--track", "none", "--out", "run"]
FEW = ["--method", "rk4", "--steps", "3", "--threads", "1"]


@pytest.fixture
def train(tmp_path: Path, monkeypatch):
    """train(recipe, *flags) -> the finished run, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def go(name: str, *words: str) -> Run:
        layers = [] if name == "protein_ensemble" else ["--layers", "1"]
        assert main(["train", name, *TINY, *layers, *words, *RUN]) == 0
        run = Run.open("run")
        assert run.status == "finished" and run.score is not None
        return run

    return go


def sampled(name: str, number: int, *words: str) -> Path:
    assert main(["sample", "run", "-n", str(number), "-o", name, "--log-prob", "--chunk", "2", *FEW, *words]) == 0
    return Path(name)


def figures(run: Run) -> set[str]:
    return {path.stem for path in (run.folder / "figures").iterdir()}


def test_molecules(train, scifm_data, capsys) -> None:
    scifm_data("qm7")
    run = train("molecules", "--source", "qm7", "--max-atoms", "8")
    out = capsys.readouterr()
    assert "molecules from qm7" in out.out and "best Gaussian (bonds)" in out.out and "left out" not in out.err
    assert figures(run) >= {"loss", "bits_per_dim", "samples", "bonds", "pair_distances"}
    import ase.io

    path = sampled("m.xyz", 5)
    frames = ase.io.read(path, ":")
    data = run.build().data.test
    assert [len(f) for f in frames] == data.counts[:5].tolist()
    assert [f.numbers.tolist() for f in frames] == [v.tolist() for v in data.nodes["z"].split(data.counts.tolist())[:5]]
    logs = [float(f.info["log_prob"]) for f in frames]
    assert np.isfinite(logs).all() and len(set(logs)) == 5 and "Å" in frames[0].info["density"]
    from biotite.structure.io.mol import SDFile

    held = SDFile.read(sampled("m.sdf", 5))
    assert [len(r.get_structure()) for r in held.values()] == data.counts[:5].tolist()


def test_a_protein_s_conformations(train, scifm_data) -> None:
    scifm_data("protein_ensembles")
    run = train("protein_ensemble")
    assert figures(run) >= {"samples", "gyration", "chain"} and run.score["samples"] == 3
    import gemmi
    from biotite.structure.io.pdb import PDBFile

    path = sampled("u.pdb", 4)
    held = gemmi.read_structure(str(path))
    assert [len(model[0]) for model in held] == [76] * 4 and held[0][0][0].name == "MET"
    assert PDBFile.read(path).get_structure().shape == (4, 76)
    assert path.read_text().count("REMARK 950 LOG_PROB  ") == 4


def test_a_trajectory_of_one_s_own(train, tmp_path: Path) -> None:
    from structure_lines import helix, put

    models = []
    for k in range(14):  # a helix of four atoms per residue that shakes
        lines = helix(6, shift=0.3 * np.random.default_rng(k).normal(size=3))
        models += [f"MODEL     {k + 1:4d}", *lines, "ENDMDL"]
    mine = put(tmp_path / "mine.pdb", *models)
    run = train("protein_ensemble", "--file", str(mine), "--atoms", "backbone", "--coupling", "independent")
    mine.unlink()  # the run has its own
    import gemmi

    held = gemmi.read_structure(str(sampled("m.cif", 2)))
    assert [[len(residue) for residue in model[0]] for model in held] == [[4] * 6] * 2
    assert run.record["flags"]["file"] == str(mine)


@pytest.mark.parametrize(("points", "prior"), [("24", "ball"), ("16,24", "gaussian")])
def test_clouds(train, points: str, prior: str) -> None:
    run = train("point_clouds", "--points", points, "--prior", prior, "--kinds", "sphere,helix")
    assert figures(run) >= {"samples", "pair_distances"}
    import trimesh

    cloud = trimesh.load(sampled("c.ply", 5))
    data = run.build().data.test
    assert len(cloud.vertices) == data.points.counts[:5].sum() and np.isfinite(cloud.vertices).all()
    with np.load(sampled("c.npz", 5)) as file:
        assert file["context.label"].tolist() == data.context["label"][:5].tolist()
        assert np.allclose(file["x"].reshape(-1, 3), cloud.vertices, atol=1e-6)


@pytest.mark.parametrize("name", ["dw4", "lj13"])
def test_particles_are_reweighted(train, scifm_data, capsys, name: str) -> None:
    scifm_data(name)
    run = train(name)
    assert run.score["dims"] == {"dw4": 6, "lj13": 36}[name] and run.score["trace"] == "exact trace"
    capsys.readouterr()
    assert main(["reweight", "run", "-n", "4", *FEW]) == 0
    out = capsys.readouterr().out
    assert "ESS" in out and "log Z" in out and Path(out.splitlines()[-1]).exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clouds of 5 to 9 points in two classes, as .npy files."""
    rng = np.random.default_rng(0)
    for name in ("flat", "round"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for k in range(20):
            points = rng.normal(size=(5 + k % 5, 3)) * (1, 1, 0.2 if name == "flat" else 1)
            np.save(tmp_path / "mine" / name / f"{k}.npy", points)
    return tmp_path / "mine"


def test_short_chains_of_one_family_are_a_folder_too(tmp_path: Path, monkeypatch, capsys) -> None:
    """Before: no flag said so, though the error asked for split='chain', and chains under 48 residues were left out."""
    from structure_lines import helix, put

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pdbs").mkdir()
    for n in range(8, 16):
        put(tmp_path / "pdbs" / f"{n}.pdb", *helix(n))
    words = ["train", "protein_backbone", "--folder", "pdbs", *TINY, "--layers", "1", *RUN]
    for more, told in (([], "chains shorter than 48 (8)"), (["--lengths", "8,12"], "1 families cannot be split in")):
        assert main([*words, *more]) == 2 and told in capsys.readouterr().err and not Path("run").exists()
    assert main([*words, "--lengths", "8"]) == 2 and "takes the least and the most" in capsys.readouterr().err
    given = {"folder": tmp_path / "pdbs", "lengths": (8, 12), "split": "chain", "width": 8, "layers": 1}
    recipe = load_recipe("protein_backbone").build(given)
    sizes = sum((part.counts.tolist() for part in (recipe.data.train, recipe.data.valid, recipe.data.test)), [])
    assert sorted(sizes) == [8, 9, 10, 11, 12] and recipe.flow.loss(recipe.data.test).isfinite().all()


def test_a_class_that_training_never_saw_can_be_scored(folder: Path) -> None:
    """Of few files of a class all may fall into the test. Before: trained, then "must hold classes 0 to 1"."""
    (folder / "worn").mkdir()
    for name in ("q4", "q6"):  # by their names both are for testing
        np.save(folder / "worn" / f"{name}.npy", np.random.default_rng(1).normal(size=(6, 3)))
    recipe = load_recipe("point_clouds").build({"folder": folder, "points": (5,), "width": 16, "layers": 1})
    data = recipe.data
    assert int(data.test.context["label"].max()) == 2 > int(data.train.context["label"].max())
    assert recipe.flow.loss(data.test).isfinite().all()


def test_a_run_of_sets_goes_on_where_it_was_stopped(train, folder: Path, monkeypatch, capsys) -> None:
    words = ["--folder", str(folder), "--points", "4,9"]
    whole = train("point_clouds", *words)
    (whole.folder).rename("whole")
    update, calls = scifm.train.update, []

    def stopped(*arguments):
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("scifm.train.update", stopped)
        assert main(["train", "point_clouds", *TINY, "--layers", "1", *words, *RUN]) == 130
    assert Run.open("run").status == "interrupted"
    assert main(["train", "--resume", "run", "--track", "none"]) == 0
    for name in ("samples.npz", "score.json"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes(), name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("point_clouds --points 8,12,16", "takes one number, or the least and the most, got 3"),
        ("point_clouds --points ,", "takes one number, or the least and the most, got 0"),
        ("point_clouds --source digits --folder mine", "are two sources of clouds; leave one out"),
        ("point_clouds --kinds torus --folder mine", "kinds and n belong to source 'shapes'"),
        ("point_clouds --kinds donut", "no kind of shape 'donut'; there are sphere"),
        ("point_clouds --noise 0.2 --coupling independent", "has none to blur"),
        ("molecules --molecule ethanol", "give --source md17, not ccd"),
        ("molecules --source md71", "expected one of ccd, qm7, qm9, md17"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(tmp_path: Path, monkeypatch, capsys, words: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words.split(), *RUN]) != 0
    assert says in capsys.readouterr().err and not Path("run").exists()


def test_lj55_is_lj13_with_more_particles(scifm_data) -> None:
    scifm_data("lj55")
    recipe = load_recipe("lj13").build({"system": "lj55", "batch_size": 2})
    assert recipe.data.train.event == (55, 3) and recipe.data.name == "lj55"
    assert recipe.flow.loss(recipe.data.train.select([0, 1])).isfinite().all()


def test_a_trajectory_of_md17_is_named(monkeypatch) -> None:
    asked = []

    def molecules(source: str, **settings) -> None:
        asked.append(source)
        raise FileNotFoundError

    monkeypatch.setattr(load_dataset("molecules"), "molecules", molecules)
    for given in ({}, {"source": "md17"}, {"source": "md17", "molecule": "salicylic acid"}):
        with pytest.raises(FileNotFoundError):
            load_recipe("molecules").build(given)
    assert asked == ["ccd", "md17", "md17:salicylic acid"]
