"""Coastlines for maps, from what cartopy has on this machine; never a download.

cartopy brings no coastlines of its own: on first use it fetches them (Natural Earth, public domain) into a folder of
the user.  Whoever has drawn a map with it once has the file; here it is only read, and without it maps have no coasts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["coastlines"]

FILE = Path("shapefiles", "natural_earth", "physical", "ne_110m_coastline.shp")
FOLDERS = ("pre_existing_data_dir", "data_dir", "repo_data_dir")  # cartopy's settings, in its own order


def coastlines() -> list[np.ndarray]:
    """Lines (n, 2) of longitude in −180 ... 180 and latitude, degrees; none where cartopy or its file is absent."""
    try:
        import cartopy  # pyright: ignore[reportMissingImports]
        from cartopy.io import shapereader  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    for name in FOLDERS:
        folder = cartopy.config.get(name)
        if folder and (path := Path(folder) / FILE).is_file():
            return [line for shape in shapereader.Reader(str(path)).geometries() for line in _lines(shape)]
    return []


def _lines(shape: Any) -> list[np.ndarray]:
    parts = shape.geoms if shape.geom_type.startswith("Multi") else [shape]
    return [np.asarray(part.coords, dtype=float)[:, :2] for part in parts]
