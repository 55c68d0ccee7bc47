"""DW4, LJ13, LJ55: read, or made from nothing and kept; what is wrong with a file is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scifm.data import equilibrium, fetch, load_dataset
from scifm.data.equilibrium import File, Made, System, load
from scifm.energies import HarmonicCluster, MonteCarlo
from scifm.testing import check_virial

SETS = {"dw4": (4, 2), "lj13": (13, 3), "lj55": (55, 3)}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A machine without any of the files."""
    monkeypatch.delenv("SCIFM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def toy(**files):
    made = Made(1.0, (6, 2, 3), MonteCarlo(30, 10, 3))
    return System("toy", HarmonicCluster(2.0), 3, 2, files or {"train": (File("none.npy", 1),)}, made)


def write(folder, name, rows, width=6, dtype="f4", shift=0.0):
    x = np.random.default_rng(rows).standard_normal((rows, width)) + shift
    np.save(folder / name, x.astype(dtype), allow_pickle=False)
    return folder / name


# -- published -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_published_sets(name, scifm_data):
    scifm_data(name)
    module = load_dataset(name)
    data = getattr(module, name)()
    for split in (data.train, data.valid, data.test):
        assert split.event == SETS[name] and split.x.dtype == torch.float32 and split.dense
        assert float(split.x.mean(1).abs().max()) < 1e-5
    assert data.unit == "" and data.delta is None and len(data.train) >= 10_000
    assert f"{SETS[name][0]} points in {SETS[name][1]}-D, centred" in data.summary
    assert all(path.is_file() for path in data.files)


def test_float64_keeps_what_the_files_have(scifm_data):
    """Centring in float64: the rows of DW4 are off centre by up to 16, which float32 would round into the shapes."""
    folder = scifm_data("dw4")
    x = load_dataset("dw4").dw4(dtype=torch.float64).test.x
    raw = torch.from_numpy(np.load(folder / "test_split_DW4.npy", allow_pickle=False)).double().reshape(-1, 4, 2)
    assert float(raw.mean(1).abs().max()) > 5
    torch.testing.assert_close(x[:, :1] - x, raw[:, :1] - raw, rtol=0, atol=1e-12)


def test_lj55_has_validation_rows_of_its_own(scifm_data):
    scifm_data("lj55")
    data = load_dataset("lj55").lj55()
    assert (len(data.train), len(data.valid), len(data.test)) == (10_000, 800, 2_000)
    assert not (data.train.x[:, None, 0, 0] == data.valid.x[None, :, 0, 0]).any()


def test_files_are_downloaded_only_when_published_is_asked_for(alone):
    source = alone / "source"
    source.mkdir()
    files = {}
    for split, rows in (("train", 20), ("valid", 5), ("test", 7)):
        path = write(source, f"{split}.npy", rows, shift=3.0)
        files[split] = (File(path.name, rows, fetch.sha256_of(path), path.as_uri()),)
    system = toy(**files)
    assert [len(b) for b in (load(system).train, load(system).valid)] == [60, 20]  # made
    data = load(system, "published")
    assert (len(data.train), len(data.valid), len(data.test)) == (20, 5, 7)
    assert float(data.train.x.mean(1).abs().max()) < 1e-6
    assert len(load(system).train) == 20  # now that they are here


def test_the_first_file_that_is_there_is_taken_and_held_rows_validate(alone):
    (alone / "scifm" / "toy").mkdir(parents=True)
    write(alone / "scifm" / "toy", "b.npy", 12)
    write(alone / "scifm" / "toy", "t.npy", 4)
    system = toy(train=(File("a.npy", 9), File("b.npy", 12)), test=(File("t.npy", 4),))
    data = load(replace(system, held=5), "published")
    assert (len(data.train), len(data.valid), len(data.test)) == (7, 5, 4)
    assert [p.name for p in data.files] == ["b.npy", "t.npy"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: write(f, "train.npy", 19), r"toy: train.npy: expected floats of shape \(20, 6\), got .* \(19, 6\)"),
        (lambda f: write(f, "train.npy", 20, dtype="i4"), "expected floats"),
        (lambda f: (f / "train.npy").write_bytes(b"no array"), "cannot be read as a .npy file.*fetch it again"),
        (lambda f: np.save(f / "train.npy", np.full((20, 6), np.nan, "f4")), "20 samples of train hold NaN"),
    ],
)
def test_another_file_is_refused(alone, spoil, message):
    folder = alone / "scifm" / "toy"
    folder.mkdir(parents=True)
    files = {split: (File(f"{split}.npy", rows),) for split, rows in (("train", 20), ("valid", 5), ("test", 7))}
    for split, rows in (("train", 20), ("valid", 5), ("test", 7)):
        write(folder, f"{split}.npy", rows)
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        load(toy(**files))


def test_other_values_under_a_published_name_are_refused(scifm_data, tmp_path, monkeypatch):
    folder = scifm_data("dw4")
    (tmp_path / "dw4").mkdir()
    for file in folder.glob("*.npy"):
        (tmp_path / "dw4" / file.name).write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    monkeypatch.setenv("SCIFM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="holds other values than the published ones"):
        load_dataset("dw4").dw4()


def test_what_cannot_be_had_is_said(alone, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none.npy is not on this machine.*SCIFM_DATA"):
        load(toy(), "published")
    with pytest.raises(ValueError, match="source must be one of auto, published, made, got 'klein'"):
        load(toy(), "klein")
    monkeypatch.setenv("SCIFM_DATA", str(alone / "misspelt"))
    with pytest.raises(FileNotFoundError, match="misspelt is not a folder"):
        load(toy())


def test_other_files_stand_in_as_a_whole_until_the_published_ones_are_there(alone, tmp_path_factory):
    folder, run = alone / "scifm" / "toy", tmp_path_factory.mktemp("run")
    folder.mkdir(parents=True)
    published = {split: (File(f"{split}.npy", None),) for split in ("train", "valid", "test")}
    instead = {"train": (File("hmc.npy", 30),), "test": (File("hmc_test.npy", 9),)}
    system = replace(toy(**published), instead=instead, held=4)
    write(folder, "hmc.npy", 30)
    write(folder, "train.npy", 20)
    assert [len(b) for b in (load(system).train, load(system).test)] == [60, 30]  # neither set is whole: made
    write(folder, "hmc_test.npy", 9)
    data = load(system)
    assert [len(b) for b in (data.train, data.valid, data.test)] == [26, 4, 9]
    with pytest.raises(FileNotFoundError, match="valid.npy is not on this machine"):
        load(system, "published")
    write(folder, "valid.npy", 5)
    write(folder, "test.npy", 7)
    for source in ("auto", "published"):
        data = load(system, source)
        assert [len(b) for b in (data.train, data.valid, data.test)] == [20, 5, 7]
    (run / "toy").mkdir()
    write(run / "toy", "hmc.npy", 30)  # a run that was trained on them goes on with them
    token = fetch.search_path.set((run,))
    try:
        assert len(load(system).train) == 26
    finally:
        fetch.search_path.reset(token)
    np.save(folder / "train.npy", np.zeros((0, 6), "f4"))
    with pytest.raises(ValueError, match=r"train.npy: expected floats of shape \(0, 6\)"):
        load(system)


# -- made ------------------------------------------------------------------------------------------------------------


def test_what_is_made_is_kept_and_read_again(alone, monkeypatch):
    first = load(toy(), seed=3)
    assert (len(first.train), len(first.valid), len(first.test)) == (60, 20, 30)
    assert [p.parent for p in first.files] == [alone / "scifm" / "toy"] * 3
    assert not list(alone.rglob("*.part"))
    other = load(toy(), seed=4)
    assert not torch.equal(first.train.x, other.train.x)
    monkeypatch.setattr(equilibrium, "sample", None)  # nothing is sampled a second time
    again = load(toy(), "made", seed=3)
    assert torch.equal(first.train.x, again.train.x) and "made-v1-seed3-train.npy" in again.summary


def test_a_run_that_was_trained_on_made_files_goes_on_with_them(alone, monkeypatch, tmp_path):
    made = load(toy(), seed=3)
    run = tmp_path / "run"
    (run / "toy").mkdir(parents=True)
    for path in made.files:
        path.rename(run / "toy" / path.name)
    published = tmp_path / "published" / "toy"
    published.mkdir(parents=True)
    write(published, "train.npy", 9), write(published, "test.npy", 4)
    monkeypatch.setenv("SCIFM_DATA", str(published.parent))
    system = replace(toy(train=(File("train.npy", 9),), test=(File("test.npy", 4),)), held=2)
    assert len(load(system, seed=3).train) == 7
    token = fetch.search_path.set((run,))
    try:
        assert torch.equal(load(system, seed=3).train.x, made.train.x)
    finally:
        fetch.search_path.reset(token)


@pytest.mark.filterwarnings("ignore:sample:UserWarning")
def test_equal_seeds_make_equal_sets_and_chains_serve_one_split_each(alone):
    one, two = equilibrium.make(toy(), 1), equilibrium.make(toy(), 1)
    assert all(torch.equal(one[s], two[s]) for s in one)
    # chains that hardly move stay where they began: no start is in two splits
    still = replace(toy(), made=Made(1.0, (6, 2, 3), MonteCarlo(0, 2, 1, 1)))
    x = {split: value[: len(value) // 2] for split, value in equilibrium.make(still).items()}
    assert [len(value) for value in x.values()] == [6, 2, 3]
    joined = torch.cat(list(x.values()))
    assert len(joined.unique(dim=0)) == 11


def test_a_cache_that_cannot_be_written_costs_the_keeping_only(alone, monkeypatch):
    (alone / "scifm").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept in .*XDG_CACHE_HOME"):
        data = load(toy())
    assert data.files == () and "sampled here with seed 0" in data.summary and len(data.test) == 30


@pytest.mark.filterwarnings("ignore:sample:UserWarning")  # short chains disagree
@pytest.mark.parametrize("name", SETS)
def test_the_sets_can_be_made_from_nothing(name, alone):
    """Their own sampler at a small size: the virial is that of the subspace."""
    module = load_dataset(name)
    n = {"dw4": 120, "lj13": 60, "lj55": 8}[name]
    small = Made(module.MADE.spacing, (n, 2, 2), replace(module.MADE.settings, burn_in=120, saves=6, thin=6))
    if name == "lj55":
        small = replace(small, settings=replace(small.settings, burn_in=60, saves=4, thin=2))
    data = load(replace(module.SYSTEM, made=small), "made", dtype=torch.float64)
    slack = 0.15 if name == "lj55" else 0.0
    found = check_virial(module.ENERGY, data.train, chains=n, slack=slack)
    assert found.expected == (SETS[name][0] - 1) * SETS[name][1]
