"""Samples that are written as they are made: the file of one piece, after a kill too, in the memory of a chunk."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scifm import Batch, checkpoint, samples, verbs
from scifm.cli import main
from scifm.data import Data, grids
from scifm.recipe import load_recipe
from scifm.run import Run
from scifm.samples import Drawn
from scifm.streamed import partial_of, sample_dim

zarr = pytest.mark.skipif(find_spec("zarr") is None, reason="zarr is not installed")
SUFFIXES = [".nc", pytest.param(".zarr", marks=zarr)]


def source(calendar="standard", n=12) -> xr.Dataset:
    """A packed field with land, and a continuous one of other units whose samples are not its first dim."""
    g = np.random.default_rng(0)
    kelvin = np.round(g.uniform(250, 300, (n, 3, 5)), 2).astype("f4")
    kelvin[:, 1, 3:] = np.nan
    if calendar != "standard":
        pytest.importorskip("cftime")
    coords = {
        "time": xr.date_range("2001-01-30T06", None, n, "6h", calendar=calendar, use_cftime=calendar != "standard"),
        "lat": ("lat", np.array([60, 45, 30], "f4"), {"units": "degrees_north"}),
        "lon": ("lon", 230.0 + np.arange(5), {"units": "degrees_east"}),
    }
    found = xr.Dataset({"air": (("time", "lat", "lon"), kelvin, {"units": "K"})}, coords, {"history": "by hand"})
    found["psl"] = (("lon", "time", "lat"), g.normal(1e5, 500, (5, n, 3)), {"units": "Pa"})
    found.air.encoding = {"dtype": np.dtype("i2"), "scale_factor": 0.01, "add_offset": 275.0}
    found.air.encoding |= {"_FillValue": np.int16(-9), "chunksizes": (1, 1, 1), "original_shape": (99, 3, 5)}
    found.time.encoding = {"units": "hours since 1900-01-01", "calendar": calendar, "dtype": np.dtype("f8")}
    return found


def chunks(batch: Batch, size: int) -> list[Drawn]:
    """The samples of a batch as if they had been drawn, with numbers that tell them apart."""
    logs = torch.randn(len(batch), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nfe, found = torch.arange(len(batch)) % 5 + 10, []
    for k in range(0, len(batch), size):
        r = list(range(k, min(k + size, len(batch))))
        found.append(Drawn(batch.select(r), logs[r], logs[r].abs(), 2, nfe[r], torch.full((len(r),), 28)))
    return found


def opened(path: Path) -> xr.Dataset:
    how = {"engine": "zarr", "consolidated": False} if path.suffix == ".zarr" else {"engine": "h5netcdf"}
    with xr.open_dataset(path, **how) as file:
        return file.load()


ABOUT = {"seed": 0, "run": "r", "solver": "rk4 3 steps", "trace": "hutchinson"}


@pytest.fixture
def still(monkeypatch):
    """A clock that stands: `history` begins with the time at which a file was finished."""
    monkeypatch.setattr("scifm.labelled.time.strftime", lambda form: "2030-01-01 00:00:00+0000")


# -- one piece or many -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_many_pieces_are_the_file_of_one(tmp_path, still, suffix, calendar):
    batch, spec = grids.from_xarray(source(calendar), ["air", "psl"])
    data = Data("sea", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))
    many, one, direct = tmp_path / f"many{suffix}", tmp_path / f"one{suffix}", tmp_path / "direct.nc"
    samples.write_chunks(lambda: chunks(batch, 5), data, many, ABOUT)
    samples.write_chunks(lambda: chunks(batch, 12), data, one, ABOUT)
    found, whole = opened(many), opened(one)
    xr.testing.assert_identical(found, whole)
    for name in found.variables:
        assert found[name].encoding["dtype"] == whole[name].encoding["dtype"]
    from scifm.labelled import dataset

    dataset(chunks(batch, 5), data, ABOUT).to_netcdf(direct, engine="h5netcdf")  # as xarray writes all at once
    xr.testing.assert_identical(found, opened(direct))
    assert found.air.dims == ("realization", "lat", "lon") and found.psl.dims == ("lon", "realization", "lat")
    assert found.air.encoding["dtype"] == "i2" and found.air.encoding["scale_factor"] == 0.01
    assert np.isnan(found.air.values[:, 1, 3:]).all() and int(np.isnan(found.air.values).sum()) == 24
    np.testing.assert_array_equal(found.realization, np.arange(12))
    np.testing.assert_array_equal(found.time.values, source(calendar).time.values)
    assert found.time.encoding["units"] == "hours since 1900-01-01" and found.time.encoding["calendar"] == calendar
    assert found.log_prob.dims == found.log_prob_stderr.dims == ("realization",)
    assert found.attrs["scifm_nfe"] == pytest.approx(float(np.mean(np.arange(12) % 5 + 10)))
    assert found.attrs["history"].splitlines()[1] == "by hand" and "NFE 11.75 per sample" in found.attrs["history"]
    assert found.log_prob.attrs["degrees_of_freedom"] == 28 and "bits_per_dim" in found.log_prob.attrs
    assert {p.name for p in tmp_path.iterdir()} == {many.name, one.name, "direct.nc"}


def test_chunks_on_the_disk_are_the_file_s_own(tmp_path):
    """Sizes that were right for the file that was read are none for samples; nor are its name and compression."""
    batch, spec = grids.from_xarray(source(), ["air"])

    def export(b):
        made = grids.to_xarray(b, spec)
        made.air.encoding |= {"chunksizes": (1, 1, 1), "original_shape": (99, 3, 5), "preferred_chunks": {"lat": 1}}
        return made

    data = Data("sea", batch, batch, batch, export=export)
    found = opened(samples.write_chunks(lambda: chunks(batch, 5), data, tmp_path / "x.nc", {}))
    assert found.air.encoding["chunksizes"][1:] == (3, 5) and found.air.encoding["chunksizes"][0] >= 5
    assert found.sizes["realization"] == 12


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_draw_outside_of_the_integers_makes_floats_of_all(tmp_path, still, suffix):
    batch, spec = grids.from_xarray(source(), ["air", "psl"])
    wild = batch.x.clone()
    wild[8, 0, 0, 0] = 1e4  # in the second of three chunks of 5
    batch = batch.replace(wild)
    data = Data("sea", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))
    asked = []

    def again():
        asked.append(len(asked))
        return chunks(batch, 5)

    many = samples.write_chunks(again, data, tmp_path / f"many{suffix}", ABOUT)
    assert len(asked) == 2  # begun anew once
    found = opened(many)
    assert found.air.encoding["dtype"] == "f4" and "scale_factor" not in found.air.encoding
    assert float(found.air[8, 0, 0]) == 1e4 and found.sizes["realization"] == 12
    xr.testing.assert_identical(found, opened(samples.write_chunks(again, data, tmp_path / f"one{suffix}", ABOUT)))


def test_whole_numbers_become_floats_where_one_does_not_fit(tmp_path):
    counts = xr.DataArray(np.arange(24, dtype="i1").reshape(4, 2, 3), dims=("time", "y", "x"), name="n")
    batch, spec = grids.from_xarray(counts)
    x = batch.x.clone()
    x[3, 0, 0, 0] = 200
    data = Data("n", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))
    found = opened(samples.write_chunks(lambda: chunks(batch.replace(x), 2), data, tmp_path / "n.nc", {}))
    assert found.n.dtype == "f8" and float(found.n[3, 0, 0]) == 200 and float(found.n[1, 1, 2]) == 11
    assert opened(samples.write_chunks(lambda: chunks(batch, 2), data, tmp_path / "m.nc", {})).n.dtype == "i1"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_times_that_the_first_units_cannot_hold_are_stored_finer(tmp_path, suffix):
    batch = Batch(torch.zeros(4, 1, 2, 3), context={"late": torch.tensor([0, 1000, 2500, 86_400_000])})

    def export(b):
        time = np.datetime64("2000-01-01", "ns") + b.context["late"].numpy().astype("timedelta64[ms]")
        names = np.array(["a" * (1 + int(k) // 1000) for k in b.context["late"] % 5000], dtype=str)
        return xr.Dataset(
            {"v": (("member", "y", "x"), b.x[:, 0].numpy())}, {"valid": ("member", time), "name": ("member", names)}
        )

    data = Data("t", batch, batch, batch, export=export)
    found = opened(samples.write_chunks(lambda: chunks(batch, 2), data, tmp_path / f"t{suffix}", {}))
    np.testing.assert_array_equal(found.valid.values, export(batch).valid.values)
    assert found.name.values.tolist() == ["a", "aa", "aaa", "a"]


def test_what_counts_samples_is_found_whatever_its_name(tmp_path):
    batch = Batch(torch.arange(16.0).reshape(4, 1, 2, 2))

    def export(b):  # a grid as long as there are samples, and a coordinate that is no count
        x = b.x[:, 0].numpy()
        coords = {"draw": np.arange(len(x)), "key": ("draw", x[:, 0, 0].astype(int))}
        return xr.Dataset({"v": (("y", "draw", "x"), x.transpose(1, 0, 2))}, coords)

    data = Data("v", batch, batch, batch, export=export)
    assert sample_dim(data, batch) == ("draw", ["draw"])
    found = opened(samples.write_chunks(lambda: chunks(batch, 2), data, tmp_path / "v.nc", {}))
    assert found.draw.values.tolist() == [0, 1, 2, 3] and found.key.values.tolist() == [0, 4, 8, 12]
    assert found.log_prob.dims == ("draw",)
    np.testing.assert_array_equal(found.v.values.transpose(1, 0, 2), batch.x[:, 0])


def test_an_export_without_such_a_dim_takes_all_at_once(tmp_path):
    batch = Batch(torch.arange(8.0).reshape(4, 2))
    data = Data("flat", batch, batch, batch, export=lambda b: xr.Dataset({"v": ("row", b.x.flatten().numpy())}))
    assert sample_dim(data, batch) == (None, [])
    made = chunks(batch, 3)
    path = samples.write_chunks(lambda: made, data, tmp_path / "v.nc", ABOUT, first=iter(made))
    assert opened(path).v.values.tolist() == list(range(8)) and opened(path).log_prob.sizes == {"log_prob_sample": 4}


# -- while it grows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_there_can_be_read_before_the_end(tmp_path, suffix):
    batch, spec = grids.from_xarray(source(), ["air", "psl"])
    data = Data("sea", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))
    path, seen, readers = tmp_path / f"s{suffix}", [], []

    def first():
        for drawn in chunks(batch, 5):
            yield drawn
            assert not path.exists()
            partial = opened(partial_of(path))
            seen.append(partial.sizes["realization"])
            assert "NFE" not in partial.attrs["history"] and "bits_per_dim" not in partial.log_prob.attrs
            if suffix == ".nc" and not readers:  # someone who keeps it open hinders nobody
                words = [sys.executable, "-c", "import h5py, sys; f = h5py.File(sys.argv[1]); print(1); input()"]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                readers.append(subprocess.Popen([*words, str(partial_of(path))], text=True, **pipes))
                assert readers[0].stdout.readline() == "1\n"

    samples.write_chunks(lambda: chunks(batch, 5), data, path, ABOUT, first=first())
    assert seen == [5, 10, 12] and not partial_of(path).exists()
    for reader in readers:
        reader.communicate("\n")
        assert reader.returncode == 0
    assert opened(path).sizes["realization"] == 12


@zarr
def test_a_whole_store_opens_without_a_word(tmp_path):
    batch, spec = grids.from_xarray(source(), ["air"])
    data = Data("sea", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = samples.write_chunks(lambda: chunks(batch, 5), data, tmp_path / "s.zarr", ABOUT)
        with xr.open_zarr(path) as file:
            found = file.load()
    xr.testing.assert_identical(found, opened(path))
    assert (
        found.sizes["realization"] == 12 and "NFE" in found.attrs["history"] and "bits_per_dim" in found.log_prob.attrs
    )


@pytest.mark.parametrize("kept", [False, True])
def test_a_partial_file_stays_only_where_a_job_can_go_on(tmp_path, kept):
    batch, spec = grids.from_xarray(source(), ["air"])
    data = Data("sea", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))

    def broken():
        yield chunks(batch, 5)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        samples.write_chunks(broken, data, tmp_path / "s.nc", {}, first=broken() if kept else None)
    assert [p.name for p in tmp_path.iterdir()] == (["s.partial.nc"] if kept else [])


# -- the command -----------------------------------------------------------------------------------------

RECIPE = '''"""A belt."""
from __future__ import annotations
import os, signal
from functools import partial
import torch
from scifm import Batch, Flow, Recipe, priors
from scifm.data import Data, grids
from test_streamed import source

class Bend(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength, self.calls = torch.nn.Parameter(torch.tensor(0.1)), 0
    def forward(self, t, x, batch):
        self.calls += 1
        if os.environ.get("DIE") and self.calls == int(os.environ["DIE"].split()[1]):
            os.kill(os.getpid(), getattr(signal, os.environ["DIE"].split()[0]))
        return self.strength * torch.tanh(x)

def recipe(*, steps: int = 1):
    batch, spec = grids.from_xarray(source("360_day"), ["air", "psl"])
    prior = priors.Masked(torch.from_numpy(spec.mask)).fit(batch)
    data = Data("belt", batch, batch, batch, export=partial(grids.to_xarray, spec=spec))
    return Recipe(Flow(Bend(), prior), data, steps=steps, test_samples=5, batch_size=4)
'''
SAMPLE = "sample a -n 14 --log-prob --probes 2 --method rk4 --steps 2 --chunk 4 --threads 1".split()  # 8 calls a chunk


@pytest.fixture
def belt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    Path("belt.py").write_text(RECIPE)
    file = load_recipe("belt.py")
    state = file.build({}).flow.state_dict()
    run = Run.create(Path("a"), file, {}, (), seed=5, status="finished")
    checkpoint.save(run.folder / "checkpoints", 10, {f"ema.{k}": v for k, v in state.items()}, {})
    return tmp_path


def killed(words: list[str], when: str) -> int:
    """The signal that ended the command, in a process of its own."""
    child = os.fork()
    if child == 0:
        os.environ["DIE"] = when
        main(words)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_job_ends_in_the_same_file(belt, still, monkeypatch, capsys, suffix):
    words, out, partial = [*SAMPLE, "-o", f"x{suffix}"], Path(f"x{suffix}"), Path(f"x.partial{suffix}")
    assert main([*SAMPLE, "-o", f"straight{suffix}"]) == 0 and not Path(f"straight.partial{suffix}").exists()
    assert killed(words, "SIGKILL 18") == -9
    assert not out.exists() and opened(partial).sizes["realization"] == 8  # two chunks, whole
    for more, said in ((["--seed", "6"], "seed 5 (now 6)"), (["--chunk", "5"], "chunk 4 (now 5)")):
        assert main([*words, *more]) == 2 and said in capsys.readouterr().err
    assert opened(partial).sizes["realization"] == 8
    if suffix == ".nc":  # a power cut in the midst of writing
        partial.write_bytes(partial.read_bytes()[:-500])
    else:
        for file in sorted(p for p in partial.rglob("*") if p.is_file())[:3]:
            file.write_bytes(b"")
    assert main(words) == 0 and not partial.exists()
    assert "going on after 8 of 14 samples" in capsys.readouterr().err
    xr.testing.assert_identical(opened(out), opened(Path(f"straight{suffix}")))
    if suffix == ".nc":
        assert out.read_bytes() == Path(f"straight{suffix}").read_bytes()
    found = opened(out)
    assert found.time.dtype == object and found.time.values[0].calendar == "360_day" and "NFE 8 per" in found.history


def test_ctrl_c_leaves_what_is_there_and_a_stranger_s_file_is_not_touched(belt, monkeypatch, capsys):
    words = [*SAMPLE, "-o", "x.nc"]
    Path("x.partial.nc").write_text("mine")
    assert main(words) == 2
    assert "x.partial.nc, where the samples of x.nc would grow, exists" in capsys.readouterr().err
    assert Path("x.partial.nc").read_text() == "mine" and not Path("x.nc").exists()
    with monkeypatch.context() as patch:
        patch.setenv("DIE", "SIGINT 10")
        assert main([*words, "--overwrite"]) == 130
    assert opened(Path("x.partial.nc")).sizes["realization"] == 4  # and the chunk that was finished last is kept
    assert main([*words, "--seed", "7", "--overwrite"]) == 0
    assert main([*SAMPLE, "-o", "y.nc", "--seed", "7"]) == 0
    xr.testing.assert_equal(opened(Path("x.nc")), opened(Path("y.nc")))


@pytest.mark.parametrize("given", ["", ".", "..", "folder", "folder/"])
def test_a_folder_is_no_output(belt, capsys, given):
    """It was taken for the name of a file beside it, and the empty name was a traceback."""
    Path("folder").mkdir()
    assert main([*SAMPLE, "-o", given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    such = Path(given) / "samples.nc"
    assert f"{str(Path(given))!r} is a folder; give --output a file's name, such as {such}" in line
    assert not list(Path().glob("*.nc")) and not list(Path("folder").iterdir())


def test_samples_of_a_training_say_tolerances_and_evaluations(belt):
    assert main(["train", "belt.py", "--out", "b", "--track", "none", "--threads", "1"]) == 0
    found = opened(Path("b/samples.nc"))
    (line, _) = found.attrs["history"].splitlines()
    assert "run b, seed 0" in line and "tolerances rtol 1e-05 atol 1e-05" in line
    assert f"NFE {found.attrs['scifm_nfe']:.4g} per sample" in line and found.attrs["scifm_nfe"] > 4
    assert not list(Path("b").glob(".*parts")) and not Path("b/samples.partial.nc").exists()
    recipe = Run.open("b").rebuild()
    drawn = recipe.data.export(verbs.draw(recipe, 5, seed=0))
    np.testing.assert_allclose(found.psl, drawn.psl, rtol=1e-12)


# -- a full disk -----------------------------------------------------------------------------------------

FULL = """
import resource, sys
import h5netcdf
from scifm.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no place can be taken before it is filled")
@pytest.mark.parametrize(("limit", "there"), [(100_000, False), (300_000, True)])
def test_a_full_disk_is_said_in_one_line_and_the_command_goes_on(belt, still, limit, there):
    """HDF5 ended in tracebacks and a segmentation fault."""
    many = " ".join(SAMPLE).replace("-n 14", "-n 1200").replace("--chunk 4", "--chunk 300").split()
    words, path = [*many, "-o", "x.nc"], os.pathsep.join(sys.path)
    full = [sys.executable, "-c", FULL, str(limit), *words]
    done = subprocess.run(full, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "x.partial.nc, which is to become x.nc, cannot be written (File too large). What was computed so far is kept: "
        "make room, and the same command goes on."
    )
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
    assert Path("x.partial.nc").exists() == there
    assert not there or opened(Path("x.partial.nc")).sizes["realization"] in (300, 600, 900)  # it can still be read
    assert main(words) == 0 and main([*many, "-o", "straight.nc"]) == 0
    assert Path("x.nc").read_bytes() == Path("straight.nc").read_bytes()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("suffix", [pytest.param(".zarr", marks=zarr), ".npz"])
def test_what_cannot_be_written_is_named(tmp_path, suffix, kept):
    resource = pytest.importorskip("resource")
    batch, spec = grids.from_xarray(source(n=600), ["psl"])
    data = Data("sea", batch, batch, batch, export=lambda b: grids.to_xarray(b, spec))
    path, before = tmp_path / f"x{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    first = iter(chunks(batch, 600)) if kept else None
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="cannot be written .File too large") as found:
            samples.write_chunks(lambda: chunks(batch, 600), data, path, ABOUT, first=first)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path) in str(found.value) and ("is kept: make room" in str(found.value)) == kept


# -- memory ----------------------------------------------------------------------------------------------

HEAVY = """
import resource, sys
import numpy as np, torch, xarray as xr
from functools import partial
from pathlib import Path
from scifm import Batch, samples
from scifm.data import Data, grids
from scifm.samples import Drawn

field = xr.DataArray(np.zeros((2, 512, 512), "f4"), dims=("time", "y", "x"), name="v")
one, spec = grids.from_xarray(field)
data = Data("heavy", one, one, one, export=partial(grids.to_xarray, spec=spec))

def chunks(n):
    for k in range(0, n, 8):
        yield Drawn(Batch(torch.randn(8, 1, 512, 512)), torch.zeros(8, dtype=torch.float64), nfe=torch.ones(8))

for suffix in sys.argv[2:]:
    for n in (32, 160):
        samples.write_chunks(lambda: chunks(n), data, Path(sys.argv[1], f"{n}{suffix}"), {}, first=chunks(n))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_samples(tmp_path):
    """32 MB of fields, then 160 MB, in chunks of 8 MB."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    suffixes = [".nc", ".zarr"] if find_spec("zarr") else [".nc"]
    words = [sys.executable, "-c", HEAVY, str(tmp_path), *suffixes]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    peaks = [int(n) for n in done.stdout.split()]
    for k, suffix in enumerate(suffixes):
        assert opened(tmp_path / f"160{suffix}").v.shape == (160, 512, 512)
        assert peaks[2 * k + 1] - peaks[2 * k] < 64e6, done.stdout
