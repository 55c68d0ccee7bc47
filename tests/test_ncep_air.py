"""The published file of ncep_air: its bytes follow from the values, and a download of them is as good as a copy."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scifm.data import fetch, load_dataset

FILE = "air_temperature.nc"
SOURCE_MD5 = "de5b9d45db48cf6b7034de1a4a6d6c98"  # air_temperature.md5 beside the file at the source
ATTRS = """long_name units precision GRIB_id GRIB_name var_desc dataset level_desc statistic parent_stat
    actual_range""".split()
FILE_ATTRS = "Conventions title description platform references".split()


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def named(text: str) -> bytes:
    return struct.pack(">i", len(text)) + padded(text.encode())


def attributes(values: dict) -> bytes:
    """Attribute list of netCDF3: tag 12, number, then name, type, length, values of each."""
    out = struct.pack(">ii", 12, len(values))
    for name, value in values.items():
        if isinstance(value, str):
            out += named(name) + struct.pack(">ii", 2, len(value)) + padded(value.encode())
            continue
        value = np.atleast_1d(value)
        kind = {"i2": 3, "f4": 5, "f8": 6}[value.dtype.str[1:]]
        out += (
            named(name)
            + struct.pack(">ii", kind, value.size)
            + padded(value.astype(f">{value.dtype.str[1:]}").tobytes())
        )
    return out


def netcdf3(dims: dict[str, int], variables: dict, attrs: dict) -> bytes:
    """A classic netCDF file of variables (dims, attrs, values), without a record dim."""
    head = b"CDF\x01" + struct.pack(">iii", 0, 10, len(dims))
    head += b"".join(named(name) + struct.pack(">i", size) for name, size in dims.items()) + attributes(attrs)
    entries, bodies = [], []
    for name, (on, what, values) in variables.items():
        body = padded(values.astype(values.dtype.newbyteorder(">")).tobytes())
        kind = {"i2": 3, "f4": 5}[values.dtype.str[1:]]
        numbers = [len(on), *(list(dims).index(d) for d in on)]
        entry = named(name) + struct.pack(f">{len(numbers)}i", *numbers) + attributes(what)
        entries.append(entry + struct.pack(">ii", kind, len(body)))
        bodies.append(body)
    offset = len(head) + 8 + sum(len(e) + 4 for e in entries)
    head += struct.pack(">ii", 11, len(entries))
    for entry, body in zip(entries, bodies, strict=True):
        head += entry + struct.pack(">i", offset)
        offset += len(body)
    return head + b"".join(bodies)


@pytest.fixture(scope="module")
def repacked() -> Path:
    """The re-packed copy under $SCIFM_DATA."""
    root = os.environ.get("SCIFM_DATA")
    path = Path(root or "") / "ncep_air_temperature" / FILE
    if not root or not path.is_file():
        pytest.skip("SCIFM_DATA is not set, or holds no ncep_air_temperature")
    return path


@pytest.fixture(scope="module")
def published(repacked, tmp_path_factory) -> Path:
    """The file at the source, rebuilt from the re-packed copy."""
    with xr.open_dataset(repacked) as found:
        found.load()
    air = {k: found.air.attrs[k] for k in ATTRS}
    air |= {k: np.int16(air[k]) for k in ("precision", "GRIB_id")}
    air |= {"actual_range": np.asarray(air["actual_range"], "f4"), "scale_factor": np.float64(0.01)}
    hours = (found.time.values - np.datetime64("1800-01-01")) / np.timedelta64(1, "h")
    time = {"standard_name": "time", "long_name": "Time", "units": "hours since 1800-01-01", "calendar": "standard"}

    def axis(name):
        keys = ("standard_name", "long_name", "units", "axis")
        return [name], {k: found[name].attrs[k] for k in keys}, found[name].values.astype("f4")

    variables = {
        "lat": axis("lat"),
        "air": (["time", "lat", "lon"], air, np.rint(found.air.values / 0.01).astype("i2")),
        "lon": axis("lon"),
        "time": (["time"], time, hours.astype("f4")),
    }
    path = tmp_path_factory.mktemp("source") / FILE
    sizes = {name: found.sizes[name] for name in ("lat", "time", "lon")}
    path.write_bytes(netcdf3(sizes, variables, {k: found.attrs[k] for k in FILE_ATTRS}))
    return path


@pytest.fixture
def offline(published, tmp_path, monkeypatch):
    """A machine without the file, whose network is the folder of the published one."""
    monkeypatch.delenv("SCIFM_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = load_dataset("ncep_air")
    monkeypatch.setattr(module, "URL", published.as_uri())
    return module


def test_the_pinned_checksum_is_that_of_the_published_values(published):
    assert fetch.sha256_of(published) == load_dataset("ncep_air").FILE_SHA256
    assert hashlib.md5(published.read_bytes()).hexdigest() == SOURCE_MD5


def test_a_download_gives_the_same_data_as_a_repacked_copy(repacked, offline):
    here, there = offline.ncep_air(repacked), offline.ncep_air()
    assert [f.parent for f in there.files] == [fetch.cache() / "ncep_air_temperature"]
    assert there.delta == here.delta == 0.01 and there.unit == "K"
    for name in ("train", "valid", "test"):
        a, b = getattr(here, name), getattr(there, name)
        assert torch.equal(a.x, b.x) and torch.equal(a.context["time"], b.context["time"])


def test_values_stay_on_the_lattice_to_within_float32(published):
    x = load_dataset("ncep_air").ncep_air(published).train.x
    steps = x.double() / 0.01
    assert float((steps - steps.round()).abs().max()) * 0.01 <= np.spacing(np.float32(x.max())) / 2


def test_samples_take_the_form_of_the_published_file(published, tmp_path):
    module = load_dataset("ncep_air")
    data = module.ncep_air(published)
    data.export(data.test).to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as out, xr.open_dataset(published) as source:
        same = source.air.sel(time=out.time.values)
        assert out.air.dims == ("realization", "lat", "lon") and out.air.dtype == source.air.dtype
        np.testing.assert_array_equal(out.air.values, same.values)
        xr.testing.assert_identical(out.lat.load(), source.lat.load())
        assert set(source.air.attrs) - set(out.air.attrs) == {"actual_range"}  # which are the file's
        for name, value in out.air.attrs.items():
            np.testing.assert_array_equal(source.air.attrs[name], value)


def test_a_download_of_another_file_is_refused_and_forgotten(repacked, offline, monkeypatch):
    monkeypatch.setattr(offline, "URL", repacked.as_uri())  # the right values, but not the file that is pinned
    with pytest.raises(ValueError, match=r"another content \(sha256 \w{12} instead of c606b89c3597\)"):
        offline.ncep_air()
    assert not [p for p in fetch.cache().rglob("*") if p.is_file()]


@pytest.mark.parametrize("kept", [0, 10, 1000, 5000, 4_000_000, 7_751_327])
def test_a_published_file_cut_short_is_refused(published, tmp_path, kept):
    (tmp_path / FILE).write_bytes(published.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"air_temperature\.nc cannot be read.*fetch it again"):
        load_dataset("ncep_air").ncep_air(tmp_path / FILE)


def test_one_flipped_bit_is_refused(published, tmp_path):
    content = bytearray(published.read_bytes())
    content[5_000_000] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match="holds other values than the published ones"):
        load_dataset("ncep_air").ncep_air(tmp_path / FILE)


def test_climatology_is_the_least_squares_fit_of_the_training_maps_alone(published):
    module = load_dataset("ncep_air")
    data, whole = module.ncep_air(published), module.read(published)[0]
    day = (whole.context["time"] - whole.context["time"][0]).floor().long()
    reference = type(module.climatology(data))().fit(whole.select((day % 40 < 30).nonzero()[:, 0]))  # its 2200 maps

    def left(fitted, batch):
        return batch.x.double() - fitted.mean(batch).double()

    fitted = module.climatology(data)
    # normal equations: what is left is orthogonal to every regressor, on the maps that were fitted and on no others
    slope = {n: torch.tensordot(fitted.features(b), left(fitted, b), ([0], [0])) / len(b) for n, b in splits(data)}
    assert float(slope["train"].abs().max()) < 1e-4 < 0.1 < float(slope["test"].abs().max())
    variance = {n: float(left(fitted, b).square().mean()) for n, b in splits(data)}
    assert variance["train"] < float(left(reference, data.train).square().mean())
    assert variance["train"] < variance["test"] < 1.2 * variance["train"]


def splits(data):
    return [(name, getattr(data, name)) for name in ("train", "valid", "test")]
