"""Every netCDF, Zarr and GRIB under $SCIFM_DATA goes in and comes back identical, or is refused with its own reason."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import xarray as xr

from scifm.data.grids import GridSpec, from_xarray, open_file, to_xarray

CSM, GENCAST = "csm_trefht_t42_global", "published_gencast_scores"
LEVELS = "z u v"
MEMBERS = [f"TREFHT.B06.{n}.atm.1890-1999ANN.nc" for n in (57, 59, 60, 61, 66, 67, 68, 69)]
CLIMO = "OMEGA PS RELHUM T U V Z3 PSL SWCF"
SURFACE = "10m_u_component_of_wind 2m_temperature geopotential temperature"
PRECIP = "T850 U850 V850 U10m V10m Q700 T2m Z500 SP"

# folder, file, variables, dims of the samples where no coordinate tells
FILES = [
    ("ncep_air_temperature", "air_temperature.nc", "air", None),
    ("ncep_air_temperature", "air_temperature.zarr", "air", None),
    *((CSM, name, "TREFHT", None) for name in MEMBERS),
    (CSM, "b003_TS_200-299.nc", "TS", None),
    (CSM, "NCEP_06_climo.nc", CLIMO, None),
    ("cru_absolute_climatology", "absolute.nc", "tem", None),
    ("echam_t2m_6hourly", "t_in_Celsius_1.nc", "tC", None),
    ("echam_t2m_6hourly", "t_in_Celsius_2.nc", "tC", None),
    ("era5_ensemble_members_3deg", "era5_members_zt_3deg.nc", "z t", None),
    ("era5_ensemble_members_3deg", "era5-levels-members.grib", "z t", None),
    ("erainterim_uvz_monthly", "eraint_uvz.nc", LEVELS, None),
    ("ersst_v5_2010_2020", "sst.mnmean.nc", "sst", None),
    ("ncep_z500_djf_atlantic", "hgt_djf.nc", "z", None),
    ("ncep_z500_djf_atlantic", "sst_ndjfm_anom.nc", "sst", None),
    # tables of scores are no fields, but they have axes all the same
    (GENCAST, "gencast_0p25deg_brier_skill_score.nc", PRECIP, "prediction_timedelta"),
    (GENCAST, "gencast_1deg_brier_skill_score.nc", PRECIP, "prediction_timedelta"),
    (GENCAST, "gencast_0p25deg_ensemble_metrics.nc", PRECIP, "metric"),
    (GENCAST, "gencast_1deg_ensemble_metrics.nc", PRECIP, "prediction_timedelta"),
    (GENCAST, "gencast_0p25deg_rank_histogram_50_members.nc", SURFACE, "prediction_timedelta"),
    (GENCAST, "gencast_1deg_rank_histogram_50_members.nc", SURFACE, "prediction_timedelta"),
]
UNDERSTOOD = {  # what is said back, in part
    "air_temperature.nc": "lat: 25, descending, 75 .. 15; lon: 53, periodic: no, 200 .. 330; time: 6 h, standard "
    "calendar, 2920, 2013-01-01 .. 2014-12-31; 0 missing",
    "air_temperature.zarr": "lat: 25, descending, 75 .. 15; lon: 53, periodic: no, 200 .. 330; time: 6 h, standard",
    MEMBERS[0]: "lon: 128, periodic: yes, 0 .. 357.188; time: 1 year, standard calendar, 110",
    MEMBERS[-1]: "time: 1 year, noleap calendar, 110, 1890-07-16 .. 1999-07-16",
    "b003_TS_200-299.nc": "time: 1 month, noleap calendar, 100",
    "absolute.nc": "time: 12 samples, no dates",
    "t_in_Celsius_1.nc": "lat: 96, descending, 88.5722 .. -88.5722; lon: 192, periodic: yes, -180 .. 178.125",
    "era5_members_zt_3deg.nc": "4 channels: z@850, z@500, t@850, t@500; latitude: 61, descending, 90 .. -90; "
    "longitude: 120, periodic: yes, 0 .. 357; number: 10 samples; time: 12 h, proleptic_gregorian calendar, 4",
    "eraint_uvz.nc": "9 channels: z@200, z@500, z@850, u@200, ..., v@500, v@850",
    "sst.mnmean.nc": "time: 1 month, proleptic_gregorian calendar, 128, 2010-01-01 .. 2020-08-01; 5032 of 16020 points "
    "masked",
    "sst_ndjfm_anom.nc": "90 of 540 points masked",
}  # fmt: skip


def test_every_file_is_here(scifm_data):
    root = scifm_data("ncep_air_temperature").parent
    found = {p.name for kind in ("*.nc", "*.zarr", "*.grib") for p in root.glob(f"*/{kind}")}
    assert found <= {file for _, file, _, _ in FILES}


@pytest.mark.parametrize(("folder", "file", "variables", "samples"), FILES, ids=[f[1] for f in FILES])
def test_it_comes_back_identical(scifm_data, tmp_path, folder, file, variables, samples):
    path, names = scifm_data(folder) / file, variables.split()
    if path.suffix == ".grib" and find_spec("cfgrib") is None:
        with pytest.raises(ValueError, match="is GRIB.*pip install cfgrib"):
            from_xarray(path)
        return
    if path.suffix == ".zarr":
        pytest.importorskip("zarr")
    source = open_file(path)[names]
    batch, spec = from_xarray(path, names, samples)
    assert batch.x.isfinite().all() and batch.x.shape == (len(batch), *spec.event)
    assert UNDERSTOOD.get(file, "missing") in spec.describe() + " missing"
    spec = GridSpec.from_json(spec.to_json())
    back = to_xarray(batch, spec, None)
    same(back, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of int64 and NaN marks, which netCDF does not have
        back.to_netcdf(tmp_path / "again.nc", engine="h5netcdf")
        again = open_file(tmp_path / "again.nc")
        same(again, source, stored=False)
        with (
            xr.open_dataset(tmp_path / "again.nc", decode_cf=False) as stored,
            xr.open_dataset(path, decode_cf=False, engine="zarr" if path.suffix == ".zarr" else None) as first,
        ):
            for name in names:
                assert stored[name].dtype.newbyteorder("=") == first[name].dtype.newbyteorder("=")
                np.testing.assert_array_equal(stored[name].values, first[name].values)


def same(back: xr.Dataset, source: xr.Dataset, stored: bool = True) -> None:
    """Values, dims and their order, coordinates, attributes with their types, dtypes, calendars."""
    xr.testing.assert_identical(back, source)
    for name, variable in source.variables.items():
        ours = back[name]
        assert ours.dims == variable.dims and ours.dtype.newbyteorder("=") == variable.dtype.newbyteorder("=")
        for key, value in variable.attrs.items():
            assert np.asarray(ours.attrs[key]).dtype.kind == np.asarray(value).dtype.kind, key
        for key in ("calendar", "units", "scale_factor", "add_offset") if stored else ("scale_factor", "add_offset"):
            if key in variable.encoding:
                assert ours.encoding[key] == variable.encoding[key], (name, key)


@pytest.mark.parametrize(
    ("folder", "file", "settings", "says"),
    [
        (CSM, "NCEP_06_climo.nc", {"variable": ["T", "gw"]}, r"'gw' \('lat',\) does not share time, lon"),
        (CSM, "NCEP_06_climo.nc", {}, "found 20: .*name it, or several of them"),
        (GENCAST, "gencast_1deg_ensemble_metrics.nc", {"variable": "T850"}, "counts the samples"),
        ("era5_ensemble_members_3deg", "README.md", {}, "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_go_in_is_refused(scifm_data, folder, file, settings, says):
    with pytest.raises(ValueError, match=says):
        from_xarray(scifm_data(folder) / file, **settings)


def test_times_of_year_zero_are_read_in_their_own_calendar(scifm_data):
    batch, spec = from_xarray(scifm_data(CSM) / "b003_TS_200-299.nc", "TS")
    # the file's own dates, YYMMDD: October of year 16 and so on
    dates = open_file(scifm_data(CSM) / "b003_TS_200-299.nc").date.values
    year, month = dates // 10000, dates // 100 % 100
    starts = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    expected = (year - 1970) * 365 + starts[month - 1]
    assert torch.equal(batch.context["time"], torch.from_numpy(expected.astype(float)))
    assert spec.calendar == "noleap" and spec.year == 365
