"""Triangle meshes from files, and points on them, even in area.

A triangle is drawn with probability proportional to its area, and a point in it from u, v uniform in the unit square,

    x = (1 − √u) a + √u (1 − v) b + √u v c                    (Osada et al. 2002)

Triangles of no area are never drawn, and edges shared by more than two triangles do no harm to sampling; but both say
that a file is not the surface it is meant to be, so `read_mesh` refuses them, unless told to repair.

The centre and the size of a *surface* are numbers of the shape, not of the sample: exact means over the area,

    m = Σ A_k (a + b + c)/3 / Σ A_k,     ρ² = Σ A_k (|a|² + |b|² + |c|² + |a + b + c|²)/12 / Σ A_k   about m

Moving and scaling by them leaves points free in all dimensions.  Scaling each cloud by its *own* points' size would put
it on a sphere of one dimension less, where no density of the flow's kind exists.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scifm.data.mesh_bytes import whole_obj, whole_off, whole_stl

__all__ = ["SUFFIXES", "Mesh", "check_mesh", "check_ply", "read_mesh", "sample_surface"]

SUFFIXES = (".off", ".ply", ".obj", ".stl")
FLAT = 1e-12  # area, in units of the largest triangle's, below which a triangle has none


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64, numbers of vertices.
        name: for messages.
    """

    vertices: Tensor
    faces: Tensor
    name: str = "mesh"

    @property
    def corners(self) -> Tensor:
        """(F, 3, 3) the places of each triangle's corners."""
        return self.vertices[self.faces]

    @property
    def areas(self) -> Tensor:
        """(F,) of each triangle."""
        a, b, c = self.corners.unbind(1)
        return torch.linalg.cross(b - a, c - a).norm(dim=1) / 2

    @property
    def centre(self) -> Tensor:
        """(3,) the mean over the surface."""
        weight = self.areas / self.areas.sum()
        return weight @ self.corners.mean(1)

    @property
    def size(self) -> float:
        """Root mean square distance of the surface from its centre."""
        corners = self.corners - self.centre
        square = (corners.square().sum((1, 2)) + corners.sum(1).square().sum(1)) / 12
        return float(self.areas @ square / self.areas.sum()) ** 0.5

    def moved(self, shift: Tensor, scale: float = 1.0) -> Mesh:
        """Vertices (x + shift) · scale."""
        return replace(self, vertices=(self.vertices + shift) * scale)


def read_mesh(path: str | Path, repair: bool = False) -> Mesh:
    """A mesh from an OFF, PLY, OBJ or STL file; polygons are cut into triangles, all parts of a scene joined.

    Files that were cut off are refused, but for OBJ, which does not say how much of it there should be.

    Args:
        path: of the file.
        repair: drop triangles of no area and accept edges of more than two triangles, instead of refusing them.

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: for another format, a damaged or truncated file, or a malformed mesh (`check_mesh`).
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"read_mesh: expected {', '.join(SUFFIXES)}, got {path.name!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"read_mesh: there is no file {path}.")
    content = path.read_bytes()
    whole = {".stl": whole_stl, ".off": whole_off, ".obj": whole_obj}.get(path.suffix.lower())
    loaded = _load(path, content if whole is None else whole(path.name, content))
    if path.suffix.lower() == ".ply":
        check_ply(path, len(loaded.vertices), len(getattr(loaded, "faces", ())))
    faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), np.int64).reshape(-1, 3)
    places = np.array(loaded.vertices, np.float64)
    if places.size and (places.ndim != 2 or places.shape[1] != 3):
        raise ValueError(f"read_mesh: {path.name} has vertices that are not three numbers each; it is damaged.")
    vertices = torch.from_numpy(places.reshape(-1, 3))
    mesh = Mesh(vertices, torch.from_numpy(faces), path.name)
    if repair and len(faces) and int(faces.max()) < len(mesh.vertices) and mesh.vertices.isfinite().all():
        mesh = replace(mesh, faces=mesh.faces[~_flat(mesh)])
    return check_mesh(mesh, manifold=not repair)


def check_mesh(mesh: Mesh, manifold: bool = True) -> Mesh:
    """The mesh, if it is a surface.

    Args:
        manifold: refuse triangles of no area and edges that more than two triangles share. Holes are fine.

    Raises:
        ValueError: with the first fault found.

    Example:
        >>> check_mesh(Mesh(torch.eye(3).double(), torch.tensor([[0, 1, 7]])))
        Traceback (most recent call last):
        ...
        ValueError: mesh: triangle 0 has the corner 7, but the vertices are 0..2; the file is damaged.
    """
    vertices, faces, name = mesh.vertices, mesh.faces, mesh.name
    if len(faces) == 0:
        raise ValueError(f"{name}: the mesh has no triangles; a file of points alone is read by clouds.read_points.")
    wrong = ((faces < 0) | (faces >= len(vertices))).any(1).nonzero()
    if len(wrong):
        face = faces[wrong[0, 0]]
        corner = int(face[(face < 0) | (face >= len(vertices))][0])
        raise ValueError(
            f"{name}: triangle {int(wrong[0, 0])} has the corner {corner}, but the vertices are 0..{len(vertices) - 1}"
            "; the file is damaged."
        )
    lost = (~vertices.isfinite().all(1)).nonzero()
    if len(lost):
        raise ValueError(f"{name}: vertex {int(lost[0])} is not finite: {vertices[int(lost[0])].tolist()}.")
    if not mesh.areas.sum() > 0:
        raise ValueError(f"{name}: all {len(faces)} triangles are without area, so there is no surface.")
    if not manifold:
        return mesh
    flat = _flat(mesh).nonzero()
    if len(flat):
        raise ValueError(
            f"{name}: {len(flat)} of {len(faces)} triangles have no area, the first is {int(flat[0])} with corners "
            f"{faces[int(flat[0])].tolist()}; read with repair=True to drop them."
        )
    # Corners in one place are one corner, since STL has no numbers for them.
    _, number = torch.unique(vertices, dim=0, return_inverse=True)
    corner = number[faces]
    edges = torch.cat([corner[:, [0, 1]], corner[:, [1, 2]], corner[:, [2, 0]]]).sort(1).values
    _, shared = torch.unique(edges, dim=0, return_counts=True)
    if shared.max() > 2:
        raise ValueError(
            f"{name}: {int((shared > 2).sum())} edges belong to more than two triangles (one to {int(shared.max())}), "
            "so this is no manifold; read with repair=True to take it as it is."
        )
    return mesh


def sample_surface(mesh: Mesh, n: int, generator: torch.Generator) -> Tensor:
    """n points (n, 3) float64 on the mesh, independent and even in area.

    Example:
        >>> square = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]).double(),
        ...     torch.tensor([[0, 1, 2], [0, 2, 3]]))
        >>> sample_surface(square, 4, torch.Generator().manual_seed(0))[:, 2]
        tensor([0., 0., 0., 0.], dtype=torch.float64)
    """
    if n < 1:
        raise ValueError(f"sample_surface: expected at least one point, got {n}.")
    edge = mesh.areas.cumsum(0)
    u = torch.rand(3, n, generator=generator, dtype=torch.float64)
    face = torch.searchsorted(edge, u[0] * edge[-1], right=True).clamp(max=len(edge) - 1)
    a, b, c = mesh.corners[face].unbind(1)
    root, v = u[1].sqrt()[:, None], u[2][:, None]
    return (1 - root) * a + root * (1 - v) * b + root * v * c


def _flat(mesh: Mesh) -> Tensor:
    """(F,) whether a triangle has no area."""
    areas = mesh.areas
    return areas <= FLAT * areas.max()


def _load(path: Path, content: bytes) -> Any:
    import trimesh

    try:
        # No processing: it would merge vertices and drop triangles without a word.
        kind = path.suffix[1:].lower()
        loaded = trimesh.load(io.BytesIO(content), file_type=kind, process=False, skip_materials=True)
    except Exception as error:  # trimesh raises whatever its parsers stumble over
        raise ValueError(
            f"read_mesh: {path.name} is damaged, truncated or no {path.suffix[1:].upper()} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]})."
        ) from error
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_mesh() if loaded.geometry else trimesh.Trimesh()
    return loaded


def check_ply(path: Path, vertices: int, faces: int | None = None) -> None:
    """Refuse a PLY of which less was read than its header announces: a text that was cut off between two elements.

    Raises:
        ValueError: says how much is missing.
    """
    with open(path, "rb") as file:
        head = file.read(1 << 20).split(b"end_header")[0].decode("ascii", "replace")
    for what, got in (("vertex", vertices), ("face", faces)):
        said = re.search(rf"^element {what} (\d+)", head, re.M)
        if said is not None and got is not None and got < int(said[1]):
            raise ValueError(f"{path.name} is truncated: {got} of {said[1]} elements {what} could be read.")
