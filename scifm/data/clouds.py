"""Point clouds from files and from surfaces.

.ply .xyz .txt .csv .npy .npz  --read_points-->  (n, d) or several of them
mesh or shape                  --clouds_of--->   points even in area, with normal noise around the surface
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.meshes import Mesh, check_ply, sample_surface
from scifm.data.shapes import Shape
from scifm.geometry import random_rotation

__all__ = ["SUFFIXES", "clouds_of", "read_points"]

SUFFIXES = (".ply", ".xyz", ".txt", ".csv", ".npy", ".npz")


def read_points(path: str | Path) -> list[Tensor]:
    """Clouds of points in a file, each (n, d) float64; most files hold one.

    .xyz, .txt and .csv are columns of numbers, x y z and perhaps more. Where a header names x and y, these and z are
    taken, wherever they stand; else the first three, without the column of row numbers that pandas writes. .npy is
    (n, d), or (B, n, d) for several clouds; .npz the same under "x", with "count" (B,) where rows (N, d) are of
    several, which is what `scifm sample` writes. A .ply with the vertex property `sample` holds several.

    Raises:
        FileNotFoundError, ValueError: the message names the file and what is wrong with it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"read_points: expected {', '.join(SUFFIXES)}, got {path.name!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"read_points: there is no file {path}.")
    if suffix == ".ply":
        clouds = _from_ply(path)
    elif suffix in (".npy", ".npz"):
        clouds = _from_numpy(path)
    else:
        clouds = [_from_text(path)]
    for k, cloud in enumerate(clouds):
        if len(cloud) == 0:
            raise ValueError(f"read_points: {path.name} holds no points (cloud {k}).")
        if not np.isfinite(cloud).all():
            row = int(np.flatnonzero(~np.isfinite(cloud).all(1))[0])
            raise ValueError(f"read_points: {path.name} holds NaN or infinity, first at point {row} of cloud {k}.")
    return [torch.from_numpy(np.ascontiguousarray(cloud, np.float64)) for cloud in clouds]


def clouds_of(
    surfaces: Sequence[Mesh | Shape],
    points: int | tuple[int, int],
    noise: float,
    generator: torch.Generator,
    *,
    turn: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """One cloud per surface: dense (B, n, 3), or ragged with sizes uniform from points[0] to points[1].

    Args:
        surfaces: meshes or shapes.
        points: of each cloud.
        noise: standard deviation of the normal noise in each coordinate, in the surface's unit. At 0 points lie on
            surfaces, where densities are infinite.
        turn: turn each cloud at random, evenly over all rotations.

    Raises:
        ValueError: for no surfaces, no points, or noise that is negative or not finite.

    Example:
        >>> from scifm.data.shapes import Torus
        >>> clouds_of([Torus()] * 2, 8, 0.01, torch.Generator().manual_seed(0)).x.shape
        torch.Size([2, 8, 3])
    """
    low, high = (points, points) if isinstance(points, int) else points
    if not surfaces:
        raise ValueError("clouds: expected at least one surface, got none.")
    if not 1 <= low <= high:
        raise ValueError(f"clouds: expected a positive number of points, or two with low <= high, got {points}.")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"clouds: noise must be finite and not negative, got {noise}.")
    sizes = torch.randint(low, high + 1, (len(surfaces),), generator=generator)
    parts = []
    for surface, n in zip(surfaces, sizes.tolist(), strict=True):
        x = sample_surface(surface, n, generator) if isinstance(surface, Mesh) else surface(n, generator)
        if turn:
            x = x @ random_rotation(1, 3, generator, torch.float64)[0].T
        parts.append((x + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)).to(dtype))
    if low == high and isinstance(points, int):
        return Batch(torch.stack(parts))
    return Batch(torch.cat(parts), torch.arange(len(sizes)).repeat_interleave(sizes), len(sizes))


def _from_text(path: Path) -> np.ndarray:
    lines = [line.split("#")[0].strip() for line in path.read_text("utf-8-sig", "replace").splitlines()]
    comma = next((k for k, line in enumerate(lines, 1) if ";" in line and "," in line), None)
    if comma is not None:
        raise ValueError(
            f"read_points: line {comma} of {path.name} parts its columns by ; and has commas too: decimal commas? "
            "Write 1.5, not 1,5."
        )
    rows = [(k, re.split(r"\s*[,;]\s*|\s+", line.rstrip(",; "))) for k, line in enumerate(lines, 1) if line]
    if rows and len(rows[0][1]) == 1 and rows[0][1][0].isdigit():
        raise ValueError(
            f"read_points: {path.name} begins with a number of atoms, so it is a molecule in XYZ and no cloud of "
            "points; ase.io.read and data.ase.from_ase read it."
        )
    names: list[str] = []
    if rows and not any(_is_number(word) for word in rows[0][1]):
        names = [word.strip("\"'/").lower() for word in rows.pop(0)[1]]
    if not rows:
        return np.zeros((0, 3))
    width = len(rows[0][1])
    if width < 2:
        raise ValueError(f"read_points: {path.name} has {width} column, expected two or three coordinates.")
    columns = _coordinates(names if len(names) == width else [], width)
    numbers = []
    for k, words in rows:
        if len(words) != width or not all(_is_number(words[c]) for c in columns):
            raise ValueError(
                f"read_points: line {k} of {path.name} has {len(words)} columns {words[:4]}, expected {width} numbers."
            )
        numbers.append([float(words[c]) for c in columns])
    return np.array(numbers)


def _coordinates(names: Sequence[str], width: int) -> list[int]:
    """Which columns are coordinates: x, y and perhaps z by their names, else the first three."""
    if {"x", "y"} <= set(names):
        return [names.index(axis) for axis in "xyz" if axis in names]
    first = 1 if names and not names[0] else 0  # pandas leaves the name of its row numbers empty
    return list(range(first, min(first + 3, width)))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _from_numpy(path: Path) -> list[np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        held = {"x": loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"read_points: {path.name} cannot be read without pickles ({error}).") from error
    array, count = held.get("x", held.get("points")), held.get("count")
    if array is None or array.ndim not in (2, 3) or not np.issubdtype(array.dtype, np.floating):
        got = f"{', '.join(held) or 'nothing'}" if array is None else f"{array.dtype} {array.shape}"
        raise ValueError(f"read_points: {path.name} holds {got}; expected floats x, (n, d) or (B, n, d).")
    if array.ndim == 3:
        return list(array)
    if count is None or (len(count) > 1 and count.sum() != len(array)):
        return [array]
    return np.split(array, np.cumsum(count)[:-1])


def _from_ply(path: Path) -> list[np.ndarray]:
    import trimesh

    try:
        loaded = trimesh.load(str(path), process=False)
        vertices = np.asarray(loaded.vertices, np.float64)  # type: ignore[union-attr]
    except Exception as error:  # trimesh raises whatever its parser stumbles over
        raise ValueError(
            f"read_points: {path.name} is damaged, truncated or no PLY ({type(error).__name__}: {error})."
        ) from error
    check_ply(path, len(vertices))
    data = loaded.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names = getattr(getattr(data, "dtype", None), "names", None) or list(data)
    if "sample" not in names:
        return [vertices]
    sample = np.asarray(data["sample"]).reshape(-1)
    return [vertices[sample == k] for k in range(int(sample.max()) + 1)]
