"""Meshes and point files of every format, and the data set made of them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
import trimesh

from scifm import Batch
from scifm.data import fetch, load_dataset
from scifm.data.clouds import read_points
from scifm.data.meshes import read_mesh
from scifm.data.ply import write_ply

module = load_dataset("clouds")


def ball(level=2, radius=1.0):
    return trimesh.creation.icosphere(level, radius)


@pytest.mark.parametrize("suffix", ["off", "ply", "obj", "stl", "ascii.ply", "ascii.stl"])
def test_every_format_gives_the_same_mesh(tmp_path, suffix):
    path, kind = tmp_path / f"ball.{suffix}", suffix.rpartition(".")[2]
    more = {"ascii.ply": {"encoding": "ascii"}, "ascii.stl": {"file_type": "stl_ascii"}}.get(suffix, {})
    ball().export(path, **{"file_type": kind, **more})
    mesh = read_mesh(path)
    assert len(mesh.faces) == 320 and mesh.vertices.dtype == torch.float64 and mesh.name == path.name
    assert float(mesh.areas.sum()) == pytest.approx(ball().area, rel=1e-6)
    np.testing.assert_allclose(mesh.centre, 0, atol=1e-6)
    np.testing.assert_allclose(np.sort(mesh.corners.mean(1).numpy(), 0), np.sort(ball().triangles_center, 0), atol=1e-6)


def test_off_headers_as_they_occur(tmp_path):
    square = "4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"
    for k, head in enumerate(("OFF\n", "OFF", "# made by hand\nOFF\n")):
        (tmp_path / f"{k}.off").write_text(head + square)
        mesh = read_mesh(tmp_path / f"{k}.off")
        assert len(mesh.faces) == 2 and float(mesh.areas.sum()) == pytest.approx(1)  # the square is cut in two


def test_all_parts_of_an_obj_are_read(tmp_path):
    (tmp_path / "two.obj").write_text(
        "mtllib lost.mtl\no a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n"
        "o b\nv 0 0 5\nv 1 0 5\nv 0 1 5\nf 4 5 6\n"
    )
    assert read_mesh(tmp_path / "two.obj").faces.tolist() == [[0, 1, 2], [3, 4, 5]]


FLAT = "OFF\n4 3 0\n0 0 0\n1 0 0\n0 1 0\n2 0 0\n3 0 1 2\n3 0 1 3\n3 1 1 2\n"
FINS = "OFF\n5 3 0\n0 0 0\n0 0 1\n1 0 0\n0 1 0\n-1 -1 0\n3 0 1 2\n3 0 1 3\n3 0 1 4\n"


def test_corners_that_count_backwards_count_from_where_they_stand(tmp_path):
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\n"
    (tmp_path / "a.obj").write_text(f"{corners}f -3/1 -2/1 \\\n-1/1\n{corners.replace('0', '5')}f 4 -2 -1\n")
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 4, 5]] and mesh.vertices[3].tolist() == [5, 5, 5]


def test_stl_as_it_occurs(tmp_path):
    text = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n"
    record = np.zeros(1, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    record["corners"] = [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    binary = b"solid that facet is not".ljust(80) + b"\1\0\0\0" + record.tobytes()
    every = [f"{text}endsolid a\n".upper().encode(), f"  {text}endsolid\n".encode(), binary, binary + b"more"]
    for k, content in enumerate(every):
        (tmp_path / "a.stl").write_bytes(content)
        mesh = read_mesh(tmp_path / "a.stl")
        assert mesh.faces.tolist() == [[0, 1, 2]] and mesh.areas.tolist() == [0.5], k


def test_repair_drops_what_is_flat_and_takes_fins_as_they_are(tmp_path):
    for name, text, kept in (("flat", FLAT, 1), ("fins", FINS, 3)):
        (tmp_path / f"{name}.off").write_text(text)
        with pytest.raises(ValueError, match=r"repair=True"):
            read_mesh(tmp_path / f"{name}.off")
        assert len(read_mesh(tmp_path / f"{name}.off", repair=True).faces) == kept


# -- point files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.xyz", "1 2 3 255 0 0\n4 5 6 0 0 0\n", [[1, 2, 3], [4, 5, 6]]),
        ("b.csv", "x,y,z\n1,2,3\n", [[1, 2, 3]]),
        ("c.csv", "1;2\n3;4e-1\n", [[1, 2], [3, 0.4]]),
        (",.csv", ",x,y,z\n0,1,2,3\n1,4,5,6\n", [[1, 2, 3], [4, 5, 6]]),  # what pandas writes
        (",ab.csv", ",lon,lat\n7,1,2\n", [[1, 2]]),
        ("id.csv", '\ufeff"id";"Z";"Y";"X"\na;3;2;1\n', [[1, 2, 3]]),
        ("bom.csv", "\ufeff1,2,3\n", [[1, 2, 3]]),
        ("mixed.txt", "//X Y Z R\n1 2, 3 255,\n", [[1, 2, 3]]),
        ("d.txt", "# scan\n\n1\t2\t3 # first\n", [[1, 2, 3]]),
    ],
)
def test_columns_of_numbers_are_points(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    (cloud,) = read_points(tmp_path / name)
    assert cloud.tolist() == expected


def test_numpy_files_hold_one_cloud_or_several(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    np.save(tmp_path / "one.npy", x[0])
    np.save(tmp_path / "two.npy", x)
    np.savez(tmp_path / "ragged.npz", x=x.reshape(8, 3), count=np.array([3, 5]))
    assert np.array_equal(read_points(tmp_path / "one.npy")[0], x[0])
    assert np.array_equal(np.stack(read_points(tmp_path / "two.npy")), x)
    assert [len(c) for c in read_points(tmp_path / "ragged.npz")] == [3, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ply_of_several_clouds_goes_out_and_in(tmp_path, dtype):
    x = torch.randn(9, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 2]), 3)
    write_ply(tmp_path / "c.ply", batch, torch.tensor([-1.5, 0.25, 3.0]), {"seed": 7, "run": "a\nb"})
    back = read_points(tmp_path / "c.ply")
    assert [torch.equal(a, b.double()) for a, b in zip(back, batch.split(), strict=True)] == [True] * 3
    other = trimesh.load(tmp_path / "c.ply")
    assert isinstance(other, trimesh.PointCloud) and np.array_equal(other.vertices, x.double().numpy())
    head = (tmp_path / "c.ply").read_bytes().split(b"end_header")[0].decode()
    assert "comment log_prob 1 0.25\n" in head and "comment seed=7\n" in head and "comment run=a b\n" in head


def test_clouds_of_the_plane_get_a_third_coordinate(tmp_path):
    write_ply(tmp_path / "flat.ply", Batch(torch.ones(2, 3, 2)))
    assert [c.tolist() for c in read_points(tmp_path / "flat.ply")] == [[[1, 1, 0]] * 3] * 2
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "plain.ply")
    assert np.array_equal(read_points(tmp_path / "plain.ply")[0], np.eye(3))


# -- the data set ----------------------------------------------------------------------------------------------------


def test_shapes_are_seeded_labelled_and_written(tmp_path):
    data = module.clouds(n=60, points=32, kinds="torus, left helix", seed=3)
    assert data.train.x.shape == (60, 32, 3) and len(data.valid) == len(data.test) == 6
    assert set(data.train.context["label"].tolist()) == {module.KINDS.index("torus"), module.KINDS.index("left helix")}
    again = module.clouds(n=60, points=32, kinds="torus,left helix", seed=3)
    assert torch.equal(data.train.x, again.train.x) and not torch.equal(data.train.x[:6], data.test.x)
    ragged = module.clouds(n=30, points=(5, 20), turn=True)
    assert ragged.train.counts.min() >= 5 and ragged.train.counts.max() <= 20 and len(ragged.train) == 30
    data.writers[".ply"](tmp_path / "s.ply", ragged.test, torch.zeros(3), {})
    assert len(read_points(tmp_path / "s.ply")) == 3


@pytest.fixture
def folder(tmp_path):
    for k in range(30):
        for kind, make in (("balls", ball), ("cubes", trimesh.creation.box)):
            (tmp_path / "meshes" / kind).mkdir(parents=True, exist_ok=True)
            mesh = make()
            mesh.apply_scale(1 + k)
            mesh.apply_translation([k, 0, 0])
            mesh.export(tmp_path / "meshes" / kind / f"{k}.{['off', 'stl', 'ply', 'obj'][k % 4]}")
    return tmp_path / "meshes"


def test_a_folder_of_meshes_is_labelled_normalised_and_reported(folder):
    (folder / "balls" / "cut.stl").write_bytes((folder / "balls" / "1.stl").read_bytes()[:200])
    (folder / "readme.md").write_text("not a mesh")
    data = module.clouds(folder, points=300, noise=0.0)
    parts = (data.train, data.valid, data.test)
    assert sum(map(len, parts)) == 60 and "labels 0 balls, 1 cubes" in data.summary
    assert "left out 1: read_mesh: cut.stl is truncated" in data.summary and data.unit == "rms radius of the surface"
    for part in parts:
        radius = part.x.norm(dim=-1)
        is_ball = part.context["label"] == 0
        # an icosphere's flat triangles lie a little inside the sphere through its corners
        assert (radius[is_ball] - 1).abs().max() < 0.02 if is_ball.any() else True
        assert radius[~is_ball].max() < (3 / (5 / 3)) ** 0.5 + 1e-6 if (~is_ball).any() else True
    raw = module.files(folder, points=50, noise=0.0, normalise=False)
    assert float(raw.train.x.abs().max()) > 10 and raw.unit == "file's unit"


def test_folders_called_train_and_test_are_the_split(folder, tmp_path):
    for kind in ("balls", "cubes"):
        for k, path in enumerate(sorted((folder / kind).iterdir())):
            home = tmp_path / "modelnet" / kind / ("test" if k % 3 == 0 else "train")
            home.mkdir(parents=True, exist_ok=True)
            path.rename(home / path.name)
    data = module.clouds(tmp_path / "modelnet", points=8)
    assert len(data.test) == 20 and len(data.train) + len(data.valid) == 40 and len(data.valid) > 0


def test_a_folder_of_points_is_drawn_without_repeats(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 20, 3))
    np.save(tmp_path / "many.npy", x)
    np.savetxt(tmp_path / "few.xyz", x[0, :3])
    data = module.clouds(tmp_path, points=20)
    assert "left out 1: too few points" in data.summary
    rows = torch.cat([p.x for p in (data.train, data.valid, data.test)])
    assert rows.shape == (40, 20, 3)
    sums = {round(float(v), 4) for v in rows.sum((1, 2))}
    assert sums == {round(float(np.float32(v)), 4) for v in x.astype(np.float32).sum((1, 2))} or len(sums) == 40
    ragged = module.clouds(tmp_path / "many.npy", points=(5, 50))
    assert ragged.train.counts.max() <= 20 and ragged.train.counts.min() >= 5
    one = ragged.train.split()[0]
    assert len(one.unique(dim=0)) == len(one)


def test_digits_are_drawn_from_their_images(scifm_data):
    folder = scifm_data("mnist_t10k")
    data = module.clouds("digits", points=400)
    images, labels, paths = module.read_digits()
    assert data.files == paths and paths[0].parent == folder
    assert data.train.event == (400, 2) and data.train.x.abs().max() <= 1
    assert (len(data.train), len(data.valid), len(data.test)) == (7957, 1003, 1040)
    assert torch.equal(torch.bincount(torch.cat([p.context["label"] for p in (data.train, data.valid, data.test)])),
                       torch.bincount(labels))  # fmt: skip
    # The share of points in each pixel is its intensity; the splits keep the order of the images.
    image = images[module.by_name([f"digit {k}" for k in range(10_000)])["test"]].double()
    column = ((data.test.x[..., 0] + 1) * 14).long().clamp(max=27)
    row = 27 - ((data.test.x[..., 1] + 1) * 14).long().clamp(max=27)
    drawn = torch.zeros(len(image), 784).scatter_add(1, row * 28 + column, torch.ones_like(data.test.x[..., 0]))
    share = image.flatten(1) / image.flatten(1).sum(1, keepdim=True)
    assert float(drawn[share < 1e-9].sum()) < 1e-3 * drawn.sum()  # float32 rounds a few over a pixel's edge
    error = (drawn / 400 - share) / (share / 400).sqrt().clamp(min=1e-9)
    assert float(error[share > 0.005].square().mean()) == pytest.approx(1, abs=0.05)
    ragged = module.digits(points=(3, 30), seed=1)
    assert ragged.test.counts.min() == 3 and ragged.test.counts.max() == 30


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: module.clouds(kinds="cube"), "no kind of shape 'cube'"),
        (lambda: module.clouds(n=3), "at least 10 shapes"),
        (lambda: module.clouds(points=0), "positive number of points"),
        (lambda: module.clouds(points=(9, 3)), "low <= high"),
        (lambda: module.clouds(noise=-1.0), "noise must be finite"),
        (lambda: module.clouds("digits", turn=True), "leave turn and noise out"),
        (lambda: module.clouds("digits", points=(0, 3)), "positive number of points"),
        (lambda: module.clouds("digits", n=5), "belong to source 'shapes'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_folders_without_clouds_are_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="holds no meshes"):
        module.clouds(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no meshes"):
        module.clouds(tmp_path / "empty")
    np.savetxt(folder / "p.xyz", np.eye(3))
    with pytest.raises(ValueError, match="mixes 60 meshes and 1 clouds"):
        module.clouds(folder)
    (tmp_path / "empty" / "x.stl").write_bytes(b"short")
    with pytest.raises(ValueError, match="none of 1 files .* can be used: read_mesh: x.stl is truncated"):
        module.clouds(tmp_path / "empty")


def test_damaged_digits_are_refused(tmp_path):
    (tmp_path / "mnist_t10k").mkdir()
    for name in module.DIGITS:
        (tmp_path / "mnist_t10k" / name).write_bytes(gzip.compress(bytes(100)))
    token = fetch.search_path.set((tmp_path,))
    try:
        with pytest.raises(ValueError, match="does not hold the 10,000 test images"):
            module.read_digits()
        (tmp_path / "mnist_t10k" / name).write_bytes(b"no gzip")
        with pytest.raises(ValueError, match="is damaged"):
            module.read_digits()
    finally:
        fetch.search_path.reset(token)
