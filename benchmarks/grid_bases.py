"""What the base of `scifm train grid` knows of files before anything is learnt, beside what it could have been.

    SCIFM_DATA=... python benchmarks/grid_bases.py            # files that the project's tests know
    python benchmarks/grid_bases.py my.nc t2m                 # or yours, with its variables

Each candidate of `grids.base` is fitted to the training blocks and scored on the test blocks, which neither the fits
nor the choice have seen: bits per dimension of anomalies, brought to a spread of one.  * marks the one that was chosen.
Times are those of the choice with all its fits, memory the largest of the process so far.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

from scifm.batch import Batch
from scifm.data import grids
from scifm.data.grids.bases import candidates
from scifm.data.stored import some
from scifm.priors import Prior

CSM = "csm_trefht_t42_global/"
FILES: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("ncep_air_temperature/air_temperature.nc", ("air",), ()),
    ("ncep_z500_djf_atlantic/hgt_djf.nc", ("z",), ()),
    ("ncep_z500_djf_atlantic/sst_ndjfm_anom.nc", ("sst",), ()),
    ("ersst_v5_2010_2020/sst.mnmean.nc", ("sst",), ()),
    (CSM + "TREFHT.B06.57.atm.1890-1999ANN.nc", ("TREFHT",), ()),
    (CSM + "b003_TS_200-299.nc", ("TS",), ()),
    ("cru_absolute_climatology/absolute.nc", ("tem",), ()),
    ("echam_t2m_6hourly/t_in_Celsius_1.nc", ("tC",), ()),
    ("era5_ensemble_members_3deg/era5_members_zt_3deg.nc", ("z", "t"), ()),
    ("erainterim_uvz_monthly/eraint_uvz.nc", ("z", "u", "v"), ("month", "level")),
]


def table(file: Path, variable: tuple[str, ...], samples: tuple[str, ...] = ()) -> list[str]:
    """Lines of a file: what was chosen, and each candidate."""
    data, spec = grids.read(file, variable, samples)
    known = some(data.train)
    anomaly = grids.anomalies(known, spec)
    train, test = anomaly(known), anomaly(data.test)
    began = time.monotonic()
    chosen = grids.base(spec, train)
    seconds, most = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines = [f"{file.name} {spec.event}: {len(train)} fields, {len(test)} to test; {seconds:.1f} s, {most:.2f} GB"]
    for prior in candidates(spec, len(train)):
        try:
            value = f"{bits(prior.fit(train), test):.3f}"
        except ValueError as error:
            value = f"none: {error}"
        lines.append(f"  {'*' if words(prior) == words(chosen) else ' '} {words(prior):<36} {value}")
    return lines


def bits(prior: Prior, test: Batch) -> float:
    """Mean bits per dimension of fields in model units."""
    test = test.replace(test.x.double())
    return float(-prior.log_prob(test.x, test).mean()) / float(prior.dims(test)[0]) / math.log(2)


def words(prior: Any) -> str:
    told = [f"{name}={getattr(prior, name)}" for name in ("spectrum", "order") if hasattr(prior, name)]
    told += [f"shrink={prior.shrink}"] if isinstance(getattr(prior, "shrink", None), float) else []
    return f"{type(prior).__name__} {' '.join(told)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("variables", nargs="*")
    found = parser.parse_args()
    if found.file is not None:
        print("\n".join(table(found.file, tuple(found.variables))))
        return
    root = os.environ.get("SCIFM_DATA")
    if not root:
        parser.error("give a file, or set SCIFM_DATA to the folder of the project's data sets")
    for name, variable, samples in FILES:
        print("\n".join(table(Path(root) / name, variable, samples)), flush=True)


if __name__ == "__main__":
    main()
