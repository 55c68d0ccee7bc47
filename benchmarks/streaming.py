"""A Zarr store larger than memory should be: made here, trained on, and the most memory that took.

    python benchmarks/streaming.py                    # 4 GB, chunks of 64 maps of 90 x 180 points
    python benchmarks/streaming.py --gigabytes 0.2    # a trial

Values are noise that was smoothed once, plus a season: what they are does not matter here, but they do not compress to
nothing.  `scifm train grid --stream` runs in a process of its own, whose largest resident memory is read off at its
end; beside it stands that of a training on a store of a hundredth, for what Python and torch take anyway.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import harness

LAT, LON, CHUNK = 90, 180, 64


def make(path: Path, gigabytes: float) -> int:
    """A store of so many bytes before compression; how many maps it holds."""
    import xarray as xr

    count = max(4 * CHUNK, int(gigabytes * 1e9 / (4 * LAT * LON)) // CHUNK * CHUNK)
    times = np.datetime64("1980-01-01", "ns") + np.arange(count) * np.timedelta64(6, "h")
    coords = {"lat": np.linspace(89, -89, LAT), "lon": np.arange(LON) * 360 / LON}
    rng = np.random.default_rng(0)
    for first in range(0, count, CHUNK):
        days = (times[first : first + CHUNK] - times[0]) / np.timedelta64(1, "D")
        season = 10 * np.cos(2 * np.pi * days / 365.25)[:, None, None] * np.sin(np.deg2rad(coords["lat"]))[:, None]
        rough = rng.normal(size=(CHUNK, LAT, LON)).astype("f4")
        smooth = (rough + np.roll(rough, 1, 2) + np.roll(rough, 1, 1) + np.roll(rough, (1, 1), (1, 2))) / 2
        part = xr.Dataset(
            {"t2m": (("time", "lat", "lon"), (280 + season + smooth).astype("f4"), {"units": "K"})},
            coords | {"time": times[first : first + CHUNK]},
        )
        if first == 0:
            part.to_zarr(path, mode="w", encoding={"t2m": {"chunks": (CHUNK, LAT, LON)}})
        else:
            part.to_zarr(path, append_dim="time")
    return count


def train(path: Path, out: Path, steps: int) -> tuple[float, float]:
    """Largest resident memory of a training, in GB, and its minutes."""
    words = ["train", "grid", "--file", str(path), "--stream", "--steps", str(steps), "--width", "8", "--out", str(out)]
    words += ["--test-samples", "2", "--track", "none", "--threads", "1"]
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "scifm", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the training of {path.name} failed")
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return used.ru_maxrss / unit, (time.monotonic() - began) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--root", type=Path, help="where the stores are made; a temporary folder if not given")
    parser.add_argument("--write", action="store_true", help="replace the section of RESULTS.md")
    found = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=found.root))
    try:
        rows = []
        for gigabytes in (found.gigabytes / 100, found.gigabytes):
            store = root / f"{len(rows)}.zarr"
            count = make(store, gigabytes)
            disk = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) / 1e9
            peak, minutes = train(store, root / f"run{len(rows)}", found.steps)
            rows.append([f"{count * 4 * LAT * LON / 1e9:.2f}", f"{disk:.2f}", count, f"{peak:.2f}", f"{minutes:.1f}"])
            print("; ".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(root)
    text = (
        f"## A store larger than memory\n\n{found.steps} steps of `scifm train grid --stream` on maps of {LAT} x {LON} "
        f"points, after a look at all of them. `python benchmarks/streaming.py {' '.join(sys.argv[1:])}`\n\n"
        + harness.table(["GB of values", "GB on disk", "maps", "most memory, GB", "minutes"], rows)
    )
    print(text)
    if found.write:
        harness.write("streaming", text)


if __name__ == "__main__":
    main()
