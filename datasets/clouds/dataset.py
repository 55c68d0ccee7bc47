"""Point clouds: parametric shapes, MNIST digits, meshes and point files; see README.md beside this file."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scifm.batch import Batch
from scifm.data import fetch
from scifm.data.clouds import SUFFIXES as POINT_FILES
from scifm.data.clouds import clouds_of, read_points
from scifm.data.meshes import SUFFIXES as MESH_FILES
from scifm.data.meshes import Mesh, read_mesh
from scifm.data.ply import write_ply
from scifm.data.shapes import KINDS, Shape, random_shape
from scifm.data.source import Data
from scifm.data.splits import SPLITS, by_name

NOISE = 0.02
WRITERS = {".ply": write_ply}
SIDE = 28  # pixels of a digit
MNIST = "https://raw.githubusercontent.com/fgnt/mnist/ae608a02b796c9ee908c082585a5f006fe05258e"
DIGITS = {
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def clouds(
    source: str | Path = "shapes",
    *,
    points: int | tuple[int, int] = 128,
    noise: float | None = None,
    turn: bool = False,
    kinds: str = "",
    n: int = 2000,
    seed: int = 0,
) -> Data:
    """Clouds of points with context["label"], dense (B, points, d), or ragged where `points` is a pair of sizes.

    Args:
        source: "shapes"; "digits", MNIST's in the plane; or a folder of meshes or point files, or one file.
        points: of each cloud; two numbers for sizes drawn evenly from the first to the second.
        noise: standard deviation of the normal noise around surfaces, 0.02 if None, in units of `files`; digits and
            point files have none added.
        turn: turn each cloud of a surface at random, evenly over all rotations.
        kinds: of shapes, separated by commas, all of `scifm.data.shapes.KINDS` if empty.
        n: training shapes; a tenth each for validation and test.
        seed: of shapes, points, noise and sizes.

    Raises:
        ValueError: for settings that make no clouds.
        FileNotFoundError: where files or folders are missing.
    """
    if source == "shapes":
        return _shapes(kinds, n, points, NOISE if noise is None else noise, turn, seed)
    if kinds or n != 2000:
        raise ValueError(f"clouds: kinds and n belong to source 'shapes', not to {str(source)!r}.")
    if source != "digits":
        return files(source, points=points, noise=NOISE if noise is None else noise, turn=turn, seed=seed)
    if turn or noise is not None:
        raise ValueError("clouds: digits lie in the plane and are jittered in their pixels; leave turn and noise out.")
    return digits(points, seed)


def digits(points: int | tuple[int, int] = 128, seed: int = 0) -> Data:
    """MNIST's test images as clouds in [−1, 1]², y upward, with their digit in context["label"].

    Pixels are drawn with probability proportional to their intensity, and a point is even within its pixel: the density
    is the image.
    """
    low, high = _range(points)
    images, labels, paths = read_digits()
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(low, high + 1, (len(images),), generator=generator)
    pixel = torch.multinomial(images.flatten(1).double(), high, replacement=True, generator=generator)
    row, column = pixel // SIDE, pixel % SIDE
    u, v = torch.rand(2, *pixel.shape, generator=generator, dtype=torch.float64)
    x = (torch.stack([column + u, SIDE - row - v], -1) * (2 / SIDE) - 1).float()
    label = {"label": labels}
    if isinstance(points, int):
        batch = Batch(x, context=label)
    else:
        there = torch.arange(high) < sizes[:, None]  # independent draws, so the first are as good as any
        batch = Batch(x[there], torch.arange(len(x)).repeat_interleave(sizes), len(x), label)
    # The first half of these images is cleaner than the second (other hands), so the split goes through all of it.
    rows = by_name([f"digit {k}" for k in range(len(x))])
    parts = {split: batch.select(chosen) for split, chosen in rows.items()}
    summary = f"clouds: {_sizes(parts)} digits of {_span(points)} points in the plane, drawn with seed {seed}"
    return Data("clouds", **parts, unit="half image width", files=paths, writers=WRITERS, summary=summary)


def read_digits() -> tuple[torch.Tensor, torch.Tensor, tuple[Path, ...]]:
    """MNIST's 10,000 test images (n, 28, 28) uint8, their digits (n,), and the files, downloaded on first use."""
    paths = tuple(fetch.find("mnist_t10k", name, url=f"{MNIST}/{name}", sha256=sha) for name, sha in DIGITS.items())
    raw = []
    for path in paths:
        try:
            raw.append(np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8))
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"clouds: {path} is damaged ({error}); remove it, and it is fetched again.") from error
    images, labels = raw[0][16:], raw[1][8:]  # after the headers of the IDX format
    if len(labels) != 10_000 or len(images) != len(labels) * SIDE**2 or labels.max() > 9:
        raise ValueError(f"clouds: {paths[0].parent} does not hold the 10,000 test images of MNIST.")
    pixels = torch.from_numpy(images.reshape(-1, SIDE, SIDE).copy())
    return pixels, torch.from_numpy(labels.astype(np.int64)), paths


def files(
    source: str | Path,
    *,
    points: int | tuple[int, int] = 128,
    noise: float = NOISE,
    turn: bool = False,
    normalise: bool = True,
    seed: int = 0,
) -> Data:
    """Clouds from a folder of meshes or of point files, or from one file of several clouds.

    The label is the number of the first folder below the source, in alphabetical order. Files are split by their names,
    or, where all lie in folders called train and test, as these say, with validation from train.

    Args:
        points, noise, turn, seed: as for `clouds`; noise is in units of the normalised surface.
        normalise: move each surface's centre to the origin and scale its root-mean-square radius to 1; exact means over
            the surface, not over the drawn points. Clouds from point files stay where they are.
    """
    source = Path(source).expanduser()
    paths = _found(source)
    surfaces, sets, names, left_out = _read_all(paths, source)
    if surfaces and sets:
        raise ValueError(
            f"clouds: {source} mixes {len(surfaces)} meshes and {len(sets)} clouds of points; put them in two folders."
        )
    if not surfaces and not sets:
        raise ValueError(f"clouds: none of {len(paths)} files under {source} can be used: {_reasons(left_out)}.")
    generator = torch.Generator().manual_seed(seed)
    if surfaces:
        surfaces = [mesh.moved(-mesh.centre, 1 / mesh.size) for mesh in surfaces] if normalise else surfaces
        batch, kept, what = clouds_of(surfaces, points, noise, generator, turn=turn), range(len(surfaces)), "meshes"
    else:
        batch, kept = _drawn(sets, points, generator)
        left_out += [(names[k], "too few points") for k in range(len(sets)) if k not in set(kept)]
        what = "clouds of points"
    unit = "rms radius of the surface" if surfaces and normalise else "file's unit"
    names = [names[k] for k in kept]
    classes, label = _classes(names)
    batch = _labelled(batch, label)
    parts = {split: batch.select(chosen) for split, chosen in _split(names).items()}
    why = f"; left out {len(left_out)}: {_reasons(left_out)}" if left_out else ""
    told = f"; labels {', '.join(f'{k} {c}' for k, c in enumerate(classes))}" if len(classes) > 1 else ""
    summary = (
        f"clouds: {_sizes(parts)} {what} from {len(paths)} files, {_span(points)} points each, in {unit}{told}{why}"
    )
    return Data("clouds", **parts, unit=unit, files=tuple(paths), writers=WRITERS, summary=summary)


# -- parts ---------------------------------------------------------------------------------------------------------


def _shapes(kinds: str, n: int, points: int | tuple[int, int], noise: float, turn: bool, seed: int) -> Data:
    chosen = [word.strip() for word in kinds.split(",") if word.strip()] or list(KINDS)
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown:
        raise ValueError(f"clouds: there is no kind of shape {unknown[0]!r}; there are {', '.join(KINDS)}.")
    if n < 10:
        raise ValueError(f"clouds: expected at least 10 shapes to split, got n={n}.")
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for split, m in zip(SPLITS, (n, n // 10, n // 10), strict=True):
        which = torch.randint(len(chosen), (m,), generator=generator)
        shapes: list[Shape] = [random_shape(chosen[k], generator) for k in which.tolist()]
        batch = clouds_of(shapes, points, noise, generator, turn=turn)
        label = {"label": torch.tensor([KINDS.index(kind) for kind in chosen])[which]}
        parts[split] = _labelled(batch, label)
    summary = (
        f"clouds: {_sizes(parts)} shapes ({', '.join(chosen)}) of {_span(points)} points, noise {noise:g}, drawn with "
        f"seed {seed}{', turned at random' if turn else ''}"
    )
    return Data("clouds", **parts, writers=WRITERS, summary=summary)


def _found(source: Path) -> list[Path]:
    """The meshes and point files of a folder, or the one file."""
    files = MESH_FILES + POINT_FILES
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix.lower() in files)
    if not source.exists() or not paths:
        raise FileNotFoundError(
            f"clouds: {source} holds no meshes ({', '.join(MESH_FILES)}) or point files ({', '.join(POINT_FILES)}); "
            "the other sources are 'shapes' and 'digits'."
        )
    return paths


def _classes(names: Sequence[str]) -> tuple[list[str], dict[str, torch.Tensor]]:
    """The first folders of all names, and which of them each name is in."""
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(folders))
    return classes, {"label": torch.tensor([classes.index(folder) for folder in folders])}


def _labelled(batch: Batch, label: dict[str, torch.Tensor]) -> Batch:
    return Batch(batch.x, context=label) if batch.dense else Batch(batch.x, batch.index, len(batch), label)


def _read_all(
    paths: Sequence[Path], root: Path
) -> tuple[list[Mesh], list[torch.Tensor], list[str], list[tuple[str, str]]]:
    """Meshes or clouds of all files, their names, and (name, reason) of those that cannot be used."""
    surfaces: list[Mesh] = []
    sets: list[torch.Tensor] = []
    names, left_out = [], []
    for path in paths:
        name = path.name if path == root else path.relative_to(root).as_posix()
        try:
            if path.suffix.lower() in MESH_FILES:
                try:
                    surfaces.append(read_mesh(path, repair=True))
                    names.append(name)
                    continue
                except ValueError as error:
                    if path.suffix.lower() != ".ply" or "no triangles" not in str(error):
                        raise
            found = read_points(path)
            sets += found
            names += [name] if len(found) == 1 else [f"{name}:{k}" for k in range(len(found))]
        except ValueError as error:
            left_out.append((name, str(error)))
    return surfaces, sets, names, left_out


def _drawn(
    sets: Sequence[torch.Tensor], points: int | tuple[int, int], generator: torch.Generator
) -> tuple[Batch, list[int]]:
    """Some points of each cloud, without repeats, and which clouds have enough of them."""
    low, high = _range(points)
    width = Counter(s.shape[1] for s in sets)
    if len(width) > 1:
        raise ValueError(
            f"clouds: the files hold points of {' and '.join(map(str, sorted(width)))} coordinates; separate them."
        )
    kept = [k for k, s in enumerate(sets) if len(s) >= low]
    if not kept:
        raise ValueError(f"clouds: no cloud has {low} points, the largest has {max(map(len, sets))}; lower points.")
    parts = []
    for k in kept:
        size = int(torch.randint(low, min(high, len(sets[k])) + 1, (), generator=generator))
        parts.append(sets[k][torch.randperm(len(sets[k]), generator=generator)[:size]].float())
    if isinstance(points, int):
        return Batch(torch.stack(parts)), kept
    sizes = torch.tensor([len(p) for p in parts])
    return Batch(torch.cat(parts), torch.arange(len(parts)).repeat_interleave(sizes), len(parts)), kept


def _split(names: Sequence[str]) -> dict[str, torch.Tensor]:
    """By folders called train and test where all files lie in one, else by name."""
    folders = [set(name.split("/")[:-1]) & {"train", "test"} for name in names]
    if not all(len(f) == 1 for f in folders) or len({*(w for f in folders for w in f)}) < 2:
        return by_name(names)
    test = torch.tensor(["test" in f for f in folders])
    train = (~test).nonzero()[:, 0]
    inner = by_name([names[k] for k in train.tolist()], 0.1, 0.1)
    rest = torch.cat([inner["train"], inner["test"]]).sort().values
    return {"train": train[rest], "valid": train[inner["valid"]], "test": test.nonzero()[:, 0]}


def _range(points: int | tuple[int, int]) -> tuple[int, int]:
    low, high = (points, points) if isinstance(points, int) else points
    if not 1 <= low <= high:
        raise ValueError(f"clouds: expected a positive number of points, or two with low <= high, got {points}.")
    return low, high


def _sizes(parts: dict[str, Batch]) -> str:
    return ", ".join(f"{len(part)} {split}" for split, part in parts.items())


def _span(points: int | tuple[int, int]) -> str:
    return str(points) if isinstance(points, int) else f"{points[0]} to {points[1]}"


def _reasons(left_out: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(reason for _, reason in left_out[:3])
    return shown + (f"; and {len(left_out) - 3} more" if len(left_out) > 3 else "")
