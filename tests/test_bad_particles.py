"""Malformed molecules, graphs and clouds: each has an error of its own, which says what came and what cures it.

The table is the promise; `test_the_promise` counts it and looks that no two entries share a message.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from scifm import Batch
from scifm.data import bonds
from scifm.data.arrays import from_arrays
from scifm.data.ase import from_ase, to_ase
from scifm.data.clouds import clouds_of, read_points
from scifm.data.constitution import constitution, fragments
from scifm.data.elements import numbers
from scifm.data.meshes import Mesh, check_mesh, read_mesh
from scifm.data.molecules import check_molecules, keep_atoms
from scifm.data.ply import write_ply
from scifm.data.sdf import write_sdf
from scifm.data.structures import write_cif, write_pdb, write_xyz

NAN = float("nan")
Z = torch.tensor([8, 1, 1])
X = torch.tensor([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
BONDS = torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]])


def water(x=X, z=Z, edge_index=BONDS, **edges):
    zeros = torch.zeros(len(x), dtype=torch.long)
    return Batch(x, zeros, 1, nodes={} if z is None else {"z": z}, edge_index=edge_index, edges=edges)


def with_nan():
    x = X.clone()
    x[1, 2] = NAN
    return x


def set_(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


def periodic():
    return ase.build.bulk("Cu")


def flat_cell():
    atoms = ase.build.molecule("H2O")
    atoms.pbc = True
    return atoms


MOLECULES = {
    "no molecules": (lambda: check_molecules(Batch(torch.zeros(0, 3), Z[:0], 0)), "at least one molecule, got none"),
    "molecule without atoms": (
        lambda: check_molecules(Batch(X, torch.tensor([0, 0, 0]), 2, nodes={"z": Z})),
        "molecule 1 has no atoms",
    ),
    "a dense batch": (lambda: check_molecules(Batch(torch.zeros(2, 3, 3))), "a row per atom; this one is dense"),
    "atoms in the plane": (lambda: check_molecules(water(X[:, :2])), r"rows \(3,\) in Å"),
    "coordinates as integers": (lambda: check_molecules(water(X.long())), "coordinates as floats, got torch.int64"),
    "NaN coordinate": (lambda: check_molecules(water(with_nan())), r"atom without a place \(row 1"),
    "species missing": (lambda: check_molecules(water(z=None)), r'expected nodes\["z"\].*there are none'),
    "species as floats": (lambda: check_molecules(water(z=Z.float())), "must be integers, got torch.float32"),
    "element 0": (lambda: check_molecules(water(z=set_(Z, 2, 0))), "row 2 has the atomic number 0.*give counts"),
    "element 200": (lambda: check_molecules(water(z=set_(Z, 0, 200))), "number 200, outside 1..118. Charges"),
    "unknown symbol": (lambda: numbers(["C", "Cx"]), "'Cx' is no chemical element"),
    "two atoms in one place": (lambda: check_molecules(water(set_(X, 1, X[2]))), "rows 1 and 2, 0 Å apart"),
    "nanometres for ångströms": (
        lambda: check_molecules(water(0.1 * X)),
        "small, the unit is not Å",
    ),
    "bond of an atom with itself": (
        lambda: check_molecules(water(edge_index=torch.tensor([[1], [1]]))),
        "atom 1 is bonded to itself",
    ),
    "bond in one direction": (
        lambda: check_molecules(water(edge_index=BONDS[:, :3])),
        "from 0 to 2 has no way back",
    ),
    "bond listed twice": (
        lambda: check_molecules(water(edge_index=torch.cat([BONDS, BONDS[:, :1]], 1))),
        "from 0 to 1 is listed twice",
    ),
    "bond of no class": (
        lambda: check_molecules(water(bond=torch.tensor([0, 0, 0, 7]))),
        "bond 3 is of class 7; the classes are 0 single",
    ),
    "classes one-hot": (
        lambda: check_molecules(water(bond=torch.eye(4))),
        r"int64 \(E,\), got torch.float32 \(4, 4\); of one-hot",
    ),
    "one class there, another back": (
        lambda: check_molecules(water(bond=torch.tensor([0, 0, 1, 0]))),
        "between 0 and 1 has one class there and another back",
    ),
    "bond to nowhere": (
        lambda: from_arrays([X.numpy()], z=[Z.numpy()], bonds=[[(0, 1), (0, 3)]]),
        r"a bond of set 0 leads to point 3, but its points are 0..2",
    ),
    "bond to another molecule": (
        lambda: replace(Batch.join([water(), water()]), edge_index=torch.tensor([[0, 4], [4, 0]])),
        "an edge crosses from one sample to another",
    ),
    "bonds as floats": (lambda: from_arrays([X.numpy()], bonds=[[(0.0, 1.0)]]), r"must be integers \(E, 2\) or"),
    "bonds of fewer sets": (lambda: from_arrays([X, X], bonds=[[(0, 1)]]), "bonds are given for 1 sets, x for 2"),
    "no structures": (lambda: from_ase([]), "at least one ase.Atoms"),
    "something that is no structure": (lambda: from_ase(["water"]), r"expected ase.Atoms, got str; ase.io.read"),
    "some periodic, some not": (
        lambda: from_ase([periodic(), ase.build.molecule("H2O")]),
        "1 of 2 structures are periodic and the others are not",
    ),
    "periodic in a flat cell": (lambda: from_ase(flat_cell()), "periodic, but its cell has no volume"),
    "dummy atoms": (lambda: from_ase(ase.Atoms("OX", [[0, 0, 0], [1, 0, 0]])), "from_ase: row 1 .* number 0"),
    "log-densities in a column": (lambda: to_ase(water(), torch.zeros(1, 1)), r"per molecule \(1\), got \(1, 1\)"),
    "log-densities of another number": (lambda: to_ase(water(), torch.zeros(3)), r"per molecule \(1\), got 3"),
    "a million ångströms in a table of ten columns": (lambda: write_sdf(Path("x.sdf"), water(1e6 * X)), "centre them"),
    "a thousand atoms in a table of three digits": (
        lambda: write_sdf(Path("x.sdf"), _line(1000)),
        "has 1000 atoms and 999 bonds",
    ),
    "molecules as residues in PDB": (lambda: write_pdb(Path("x.pdb"), water(), None, {}), "write_pdb: writes residues"),
    "molecules as residues in mmCIF": (lambda: write_cif(Path("x.cif"), water(), None, {}), "write_cif: writes resid"),
    "written without species": (lambda: write_sdf(Path("x.sdf"), water(z=None)), "write_sdf: expected nodes"),
    "written with padding for atoms": (
        lambda: write_xyz(Path("x.xyz"), water(z=0 * Z)),
        "write_xyz: row 0 .* number 0",
    ),
    "negative tolerance": (lambda: bonds.perceive(water(), -0.1), "tolerance must be finite and not negative"),
    "bonds told without species": (lambda: bonds.perceive(water(z=None)), "bonds.perceive: expected nodes"),
    "pieces counted without bonds": (lambda: fragments(water(edge_index=None)), "fragments: expected a ragged batch"),
    "compared without bonds": (lambda: constitution(water(edge_index=None)), "constitution: expected a ragged batch"),
    "atoms kept by number": (lambda: keep_atoms(water(), Z), "one bool per row"),
}


def _line(n):
    x = torch.zeros(n, 3)
    x[:, 0] = 1.5 * torch.arange(n)
    return Batch(x, torch.zeros(n, dtype=torch.long), 1, nodes={"z": torch.full((n,), 6)})


GRAPHS = {
    "no graphs": (lambda: Batch.from_pyg([]), "at least one graph"),
    "something that is no graph": (lambda: Batch.from_pyg([Data(pos=X), X]), "entry 1 is Tensor"),
    "a tensor for a graph": (lambda: Batch.from_pyg(X), "expected torch_geometric Data.*got Tensor"),
    "graphs of other fields": (
        lambda: Batch.from_pyg([Data(pos=X, z=Z), Data(pos=X)]),
        "graph 1 has 'z' as nothing, graph 0 as torch.int64",
    ),
    "graphs of mixed dtypes": (
        lambda: Batch.from_pyg([Data(pos=X), Data(pos=X.double())]),
        "graph 1 has 'pos' as torch.float64, graph 0 as torch.float32",
    ),
    "graphs of other numbers": (
        lambda: Batch.from_pyg([Data(pos=X, y=1.0), Data(pos=X)]),
        "graph 1 has 'y' as nothing, graph 0 as number",
    ),
    "graphs of NumPy arrays": (
        lambda: Batch.from_pyg([Data(pos=X, z=Z.numpy()), Data(pos=X, z=Z.numpy())]),
        "'z' holds NumPy arrays, which PyG does not batch",
    ),
    "graphs of integers": (lambda: Batch.from_pyg(Data(pos=X.long())), "'pos' flows, .* got torch.int64"),
    "graph with NaN": (lambda: Batch.from_pyg(Data(pos=with_nan())), "'pos' holds NaN or infinity, first in row 1"),
    "nothing that flows": (lambda: Batch.from_pyg(Data(x=X)), "no field 'pos' to flow"),
    "a field of no known owner": (
        lambda: Batch.from_pyg([Data(pos=X, extra=torch.zeros(7)), Data(pos=X, extra=torch.zeros(7))]),
        "'extra' .* has neither one entry per node",
    ),
}

CLOUDS = {
    "no sets": (lambda: from_arrays([]), "at least one set of points, got an empty list"),
    "set without points": (lambda: from_arrays([X, X[:0]]), "set 1 has no points"),
    "one set for a list": (lambda: from_arrays(X), r"one padded array \(B, n_max, d\), got \(3, 3\)"),
    "points without coordinates": (lambda: from_arrays([X[:, 0]]), r"set 0 must be \(n, d\), got \(3,\)"),
    "points as integers": (lambda: from_arrays([X.long()]), "set 0 holds torch.int64"),
    "sets of mixed dtypes": (lambda: from_arrays([X, X.double()]), r"set 1 is torch.float64 .* set 0 is torch.float32"),
    "sets of mixed dimensions": (lambda: from_arrays([X, X[:, :2]]), r"set 1 is torch.float32 \(n, 2\)"),
    "NaN among points": (lambda: from_arrays([X, with_nan()]), "set 1 holds NaN or infinity"),
    "species of another length": (lambda: from_arrays([X], z=[Z[:2]]), r"3 points but species of shape \(2,\)"),
    "species of fewer sets": (lambda: from_arrays([X, X + 9], z=[Z]), "z is given for 1 sets, x for 2"),
    "masked points": (lambda: from_arrays([np.ma.masked_greater(X.numpy(), 0.5)]), "set 0 has masked entries"),
    "points as text": (lambda: from_arrays(np.full((1, 2, 3), "a")), "from_arrays: x holds <U1, expected numbers"),
    "symbols for numbers": (lambda: from_arrays([X], z=[["O", "H", "H"]]), "z holds <U1.*elements.numbers"),
    "a dictionary for sets": (lambda: from_arrays({"x": X}), "one padded array, got dict"),
    "a loop among points": (lambda: from_arrays([X], bonds=[[(2, 2)]]), "from_arrays: atom 2 is bonded to itself"),
    "a bond twice among points": (lambda: from_arrays([X], bonds=[[(0, 2)] * 2]), "from_arrays: .* 2 is listed twice"),
    "counts of a list": (lambda: from_arrays([X], counts=[3]), "counts belong to one padded array"),
    "counts of another length": (lambda: from_arrays(X[None], counts=[3, 3]), "counts must be 1 integers"),
    "more points counted than there are": (lambda: from_arrays(X[None], counts=[4]), "set 0 has count 4, outside 0..3"),
    "points in four dimensions as PLY": (
        lambda: write_ply(Path("x.ply"), Batch(torch.zeros(2, 5, 4))),
        "plane or of space",
    ),
    "NaN as PLY": (lambda: write_ply(Path("x.ply"), Batch(torch.full((2, 5, 3), NAN))), "write_ply: expected finite"),
    "no surfaces": (lambda: clouds_of([], 5, 0.1, torch.Generator()), "at least one surface"),
    "clouds of no points": (lambda: clouds_of([mesh()], 0, 0.1, torch.Generator()), "positive number of points"),
    "noise of no size": (lambda: clouds_of([mesh()], 5, NAN, torch.Generator()), "noise must be finite"),
}


def mesh(vertices=X.double(), faces=((0, 1, 2),)):
    return Mesh(vertices, torch.tensor(faces, dtype=torch.long).reshape(-1, 3))


MESHES = {
    "mesh without triangles": (lambda: check_mesh(mesh(faces=())), "no triangles"),
    "corner that is no vertex": (
        lambda: check_mesh(mesh(faces=((0, 1, 3),))),
        "has the corner 3, but the vertices are 0..2",
    ),
    "vertex that is NaN": (lambda: check_mesh(mesh(with_nan().double())), "vertex 1 is not finite"),
    "mesh without area": (lambda: check_mesh(mesh(faces=((0, 0, 1), (1, 1, 2)))), "all 2 triangles are without area"),
    "triangle without area": (
        lambda: check_mesh(mesh(faces=((0, 1, 2), (0, 1, 1)))),
        "1 of 2 triangles have no area, the first is 1",
    ),
    "edge of three triangles": (
        lambda: check_mesh(mesh(torch.cat([X, torch.eye(3)[:2]]).double(), ((0, 1, 2), (1, 0, 3), (0, 1, 4)))),
        "1 edges belong to more than two triangles",
    ),
}

FILES = {
    "a format that is none": ("x.glb", b"glTF", read_mesh, "expected .off, .ply, .obj, .stl"),
    "OFF without counts": ("x.off", b"OFF\nv 0 0 0\n", read_mesh, "does not begin with OFF and the numbers"),
    "OFF cut off": ("x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", read_mesh, "truncated: 12 numbers, at least 16"),
    "OFF with a corner that is none": (
        "x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", read_mesh, "or no OFF .*outside the range",
    ),
    "binary STL cut off": ("x.stl", bytes(80) + b"\2\0\0\0" + bytes(60), read_mesh, "truncated: 144 of 184 bytes"),
    "STL without a header": ("x.stl", bytes(20), read_mesh, "truncated: 20 bytes, the header alone has 84"),
    "text STL cut off": (
        "x.stl", b"solid a\n facet normal 0 0 1\n  outer loop\n   vertex 0 0 0\n", read_mesh, "ends without 'endsolid'",
    ),
    "PLY cut off": (
        "x.ply",
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n",
        read_mesh,
        "x.ply is truncated: 2 of 3 elements vertex",
    ),
    "binary PLY cut off": (
        "x.ply",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        b"property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n" + bytes(30),
        read_mesh,
        "damaged, truncated or no PLY",
    ),
    "OBJ with a corner that is none": ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", read_mesh, "no OBJ .Index"),
    "OBJ with corner 0": ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", read_mesh, "line 4 of x.obj .* corner 0"),
    "OBJ with a corner before all": (
        "x.obj", b"v 0 0 0\nv 1 0 0\nf -3 -2 -1\nv 0 1 0\n", read_mesh, "corner -3 after 2 vertices",
    ),
    "decimal commas": ("x.csv", b"x;y;z\n1,5;2,5;3,5\n", read_points, "line 2 of x.csv parts its columns by ; and"),
    "an empty field": ("x.csv", b"x,y,z\n1,,3\n", read_points, r"line 2 of x.csv has 3 columns \['1', '', '3'\]"),
    "OBJ in the plane": ("x.obj", b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", read_mesh, "has vertices that are not three"),
    "OBJ of nothing": ("x.obj", b"# nothing\n", read_mesh, "x.obj: the mesh has no triangles"),
    "OBJ with NaN": ("x.obj", b"v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n", read_mesh, "x.obj: vertex 2 is not finite"),
    "points of no format": ("x.pcd", b"", read_points, "expected .ply, .xyz, .txt, .csv, .npy, .npz"),
    "a molecule for points": ("x.xyz", b"1\n\nO 0 0 0\n", read_points, "begins with a number of atoms"),
    "a line that is short": ("x.xyz", b"0 0 0\n1 2\n", read_points, "line 2 of x.xyz has 2 columns"),
    "one column": ("x.txt", b"0.5\n1.5\n", read_points, "has 1 column, expected two or three"),
    "points that are NaN": ("x.csv", b"x,y\n0,nan\n", read_points, "first at point 0 of cloud 0"),
    "no points at all": ("x.csv", b"x,y,z\n", read_points, "x.csv holds no points"),
    "points in a pickle": ("x.npy", "pickle", read_points, "cannot be read without pickles"),
    "points as integers in a file": ("x.npy", np.eye(3, dtype=int), read_points, r"holds int64 \(3, 3\)"),
    "an archive without points": ("x.npz", {"y": np.eye(3)}, read_points, "x.npz holds y; expected floats x"),
    "half of a PLY of points": (
        "x.ply", b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nproperty float y\n"
        b"property float z\nend_header\n" + bytes(40), read_points, "read_points: x.ply is damaged",
    ),
}  # fmt: skip

LIBRARY = {**MOLECULES, **GRAPHS, **CLOUDS, **MESHES}


@pytest.mark.parametrize("name", LIBRARY)
def test_malformed(name):
    call, says = LIBRARY[name]
    with pytest.raises((ValueError, TypeError), match=says):
        call()


@pytest.mark.parametrize("name", FILES)
def test_malformed_file(name, tmp_path):
    file, content, read, says = FILES[name]
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, str):
        np.save(path, np.array([{"a": 1}], dtype=object))
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=says):
        read(path)


@pytest.mark.parametrize("read", [read_mesh, read_points])
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x\.ply"):
        read(tmp_path / "x.ply")


def test_the_promise():
    says = [entry[-1] for entry in (*LIBRARY.values(), *FILES.values())]
    assert len(says) >= 80 and len(set(says)) == len(says)


def test_what_is_well_formed_passes():
    assert check_molecules(water()) is not None and check_mesh(mesh()) is not None
    assert len(from_arrays([X], z=[Z], bonds=[[(0, 1), (0, 2)]])) == 1
    assert fragments(water()).tolist() == [1]
