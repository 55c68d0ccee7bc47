"""Malformed structures: each is refused before any work, with an error that says what is wrong with it."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structure_lines import atom, cif, helix, put

from scifm.data.structures import read, read_ensemble

DNA = [atom("P", " DA", i, (6.0 * i, 0, 0)) for i in range(1, 4)]
CA = [atom("CA", "ALA", i, (3.8 * i, 0.01 * i * i, 0), element="C") for i in range(1, 9)]


def changed(row: int, a: int, b: int, text: str, lines: list[str] | None = None) -> list[str]:
    """The helix with columns a .. b-1 of one line replaced."""
    lines = list(lines or helix())
    lines[row] = lines[row][:a] + text.rjust(b - a) + lines[row][b:]
    return lines


def scaled(factor: float) -> list[str]:
    """The helix in other units: columns would be too narrow for large ones, so the chain is short."""
    return [x[:30] + "".join(f"{factor * float(x[k : k + 8]):8.3f}" for k in (30, 38, 46)) + x[54:] for x in helix()]


def cif_text(tmp_path: Path, edit: Callable[[str], str]) -> bytes:
    return edit(cif(tmp_path / "tmp", helix()).read_text()).encode()


def gro(count: str = "3", rows: int = 3, x: str = "   0.380", box: str = "  1.0 1.0 1.0") -> bytes:
    body = [f"{i + 1:5d}ALA     CA{i + 1:5d}{x if i == 1 else f'{0.38 * i:8.3f}'}{0:8.3f}{0:8.3f}" for i in range(rows)]
    return "\n".join(["title", count, *body, box]).encode()


def garbage(count: int = 3000) -> bytes:
    return np.random.default_rng(0).bytes(count)


def text(*lines: str) -> Callable[[Path], bytes]:
    return lambda _: ("\n".join(lines) + "\n").encode()


def swapped(lines: list[str]) -> list[str]:
    """Residues from the last to the first, as they are numbered."""
    return [line for i in reversed(range(len(lines) // 4)) for line in lines[4 * i : 4 * i + 4]]


HELIX = "\n".join(helix()).encode()
HOLED = changed(5, 30, 54, "   0.000" * 3, changed(9, 30, 54, "   0.000" * 3))
FILES: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    # -- the file
    "another table within": ("a.cif", lambda p: cif_text(p, lambda s: s.replace("_atom_site.auth_seq_id", "_other.x")),
                             "table of atoms is damaged (Tag _other.x in loop"),
    "PQR": ("a.pdb", text("ATOM 1 N ALA A 1 0.0 0.0 0.0 -0.3 1.8"), "line 1 is an atom, but not in PDB's"),
    "a grouped number": (
        "a.pdb", text(*changed(2, 30, 38, "1_2.345")), "x coordinate in line 3 is '1_2.345', which is no number",
    ),
    "empty": ("a.pdb", lambda _: b"", "is empty (0 bytes)"),
    "wrong extension": ("a.txt", lambda _: HELIX, "its name does not tell its format; structures end in .pdb"),
    "no extension": ("a", lambda _: HELIX, "its name does not tell its format"),
    "no residues in xyz": ("a.xyz", lambda _: b"1\n\nH 0 0 0\n", "tells elements but no residues"),
    "a trajectory": ("a.xtc", lambda _: garbage(), "is a trajectory, which tells no residues: give a structure"),
    "truncated gzip": ("a.pdb.gz", lambda _: gzip.compress(HELIX)[:-200], "compression is damaged or cut short"),
    "damaged gzip": ("a.pdb.gz", lambda _: gzip.compress(HELIX)[:-8] + bytes(8), "compression is damaged or cut"),
    "no gzip": ("a.cif.gz", lambda _: HELIX, "is not compressed by gzip, whatever its name says; name it without"),
    "gzip without its name": ("a.pdb", lambda _: gzip.compress(HELIX), "is compressed by gzip, whatever its name"),
    "binary garbage as PDB": ("a.pdb", lambda _: garbage(), "holds binary data, not PDB text"),
    "binary garbage as GRO": ("a.gro", lambda _: garbage(), "holds binary data, not GRO text"),
    "binary garbage as mmCIF": ("a.cif", lambda _: garbage(), "is no mmCIF, or damaged or cut short"),
    "binary garbage as BinaryCIF": ("a.bcif", lambda _: garbage(), "is no BinaryCIF, or damaged or cut short"),
    "a web page": ("a.pdb", text("<!DOCTYPE html>", "<p>404"), "is a web page, not a structure"),
    "mmCIF as PDB": ("a.pdb", text("data_x", "loop_"), "holds no atom records, and looks like mmCIF; name it .cif"),
    "PDB as mmCIF": ("a.cif", lambda _: HELIX, "looks like a PDB file; name it .pdb"),
    # -- columns and tables
    "no atoms": ("a.pdb", text("HEADER", "END"), "holds no atoms: no line begins with ATOM or HETATM"),
    "missing columns": ("a.pdb", text(*helix(2), helix()[0][:40]), "line 9 is an atom of 38 columns, too few"),
    "cut short in a line": ("a.pdb", lambda _: HELIX[:-40], "line 32 is an atom of"),
    "no number": ("a.pdb", text(*changed(5, 30, 38, "1x.345")), "the x coordinate in line 6 is '1x.345'"),
    "columns overrun": ("a.pdb", text(*changed(5, 38, 46, "*" * 8)), "did not fit into its columns, write mmCIF"),
    "a coordinate left out": ("a.pdb", text(*changed(5, 46, 54, " " * 8)) , "the z coordinate in line 6 is missing"),
    "NaN": ("a.pdb", text(*changed(5, 30, 38, "nan")), "missing, NaN or infinite, the first is CA of ALA A 2 (line 6)"),
    "infinite": ("a.pdb", text(*changed(6, 38, 46, "inf")), "the first is C of ALA A 2 (line 7)"),
    "no residue number": ("a.pdb", text(*changed(4, 22, 26, "  ??")), "the residue number of"),
    "NaN in mmCIF": ("a.cif", lambda p: cif_text(p, lambda t: re.sub(r"(ALA X 2 2 A) \S+", r"\1 nan", t, count=1)),
                     "the first is N of ALA A 2 (atom 5)"),
    "unknown in mmCIF": ("a.cif", lambda p: cif_text(p, lambda t: re.sub(r"(ALA X 2 2 A) \S+", r"\1 ?", t, count=1)),
                         "is missing, NaN or infinite, the first is N of ALA A 2 (atom 5): (nan"),
    "text in mmCIF": ("a.cif", lambda p: cif_text(p, lambda t: re.sub(r"(ALA X 2 2 A) \S+", r"\1 zero", t, count=1)),
                      "Cartn_x of atom 5 is 'zero', which is no number"),
    "mmCIF cut short": ("a.cif", lambda p: cif_text(p, lambda t: t[:-10]), "or damaged or cut short (line"),
    "mmCIF without atoms": ("a.cif", text("data_x", "_entry.id x"), "none of its 1 data blocks holds a table"),
    "mmCIF without z": ("a.cif", lambda p: cif_text(p, lambda t: t.replace("Cartn_z", "z")), "have no Cartn_z"),
    "two structures": ("a.cif", lambda p: cif_text(p, lambda t: t + t.replace("data_x", "data_y")), "2 structures"),
    "GRO without a count": ("a.gro", lambda _: gro("three"), "line 2 should be the number of atoms, and is 'three'"),
    "GRO of fewer atoms": ("a.gro", lambda _: gro("7"), "line 2 promises 7 atoms and a box, the file ends at line 6"),
    "GRO without a box": ("a.gro", lambda _: gro(box=""), "promises 3 atoms and a box"),
    "GRO with letters": ("a.gro", lambda _: gro(x="   0.3a0"), "the x coordinate in line 4 is '0.3a0'"),
    "GRO of none": ("a.gro", lambda _: gro("0", 0), "holds no atoms"),
    # -- chemistry
    "only hetero atoms": ("a.pdb", text(atom("C1", "LIG", 1), atom("O", "HOH", 2, record="HETATM")),
                          "holds no protein, only water molecules (1), molecules of unknown names (1)"),
    "only free amino acids": ("a.pdb", text(*[atom("CA", "GLY", i, (9 * i, 0, 0), record="HETATM") for i in (1, 2)]),
                              "only 2 single amino acids among its hetero atoms"),
    "only nucleic acids": ("a.pdb", text(*DNA), "holds nucleic acids (3 nucleotides) and no protein"),
    "no CA": ("a.pdb", text(*[x for x in helix() if " CA " not in x]), "holds amino acids, but no CA atom"),
    "unknown element": ("a.pdb", text(*changed(5, 76, 78, "Qq")), "unknown element 'Qq' of CA of ALA A 2 (line 6)"),
    "another element": ("a.pdb", text(*changed(5, 76, 78, "CA")), "CA of ALA A 2 (line 6) has the element CA, not C"),
    "duplicate atom": ("a.pdb", text(*helix(), helix()[-3]), "duplicate atom CA of ALA A 8 (line 30), again in"),
    # -- chains
    "one residue twice": ("a.pdb", text(*helix(), *helix(1)), "residue A 1 is there 2 times, apart from each other"),
    "two names at one number": ("a.pdb", text(*helix(4), *[x.replace("ALA", "SER") for x in helix(4, shift=9.0)[12:]]),
                                "residue A 4 is there 2 times, apart from each other"),
    "two chains of one name": ("a.pdb", text(*helix(), *helix(4, shift=40.0)), "two chains of one name"),
    "mixed chain names": ("a.pdb", text(*changed(5, 21, 22, "B")), "atoms of mixed chain names"),
    "models without MODEL": ("a.pdb", text(*helix(), *helix()), "models without MODEL records"),
    "backwards": ("a.pdb", text(*swapped(helix())), "residue numbers of chain A run backwards (7 of 7 steps)"),
    "nanometres": ("a.pdb", text(*scaled(0.1)), "neighbouring CA are 0.38 apart: these are nanometres"),
    "tenths of Å": ("a.pdb", text(*scaled(10)), "neighbouring CA are 38 apart, where 3.8 Å are expected"),
    "all zero": ("a.pdb", text(*scaled(0)), "all 8 CA atoms lie at the same place (0, 0, 0)"),
    "placeholders": ("a.pdb", text(*HOLED), "2 of 8 CA atoms lie at the same place"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_malformed_file_is_refused_with_its_own_reason(case, tmp_path):
    name, make, message = FILES[case]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    with pytest.raises(ValueError, match=re.escape(message)) as found:
        read(path)
    said = str(found.value)
    assert said.startswith(f"{name}: ") and str(tmp_path) not in said and "  " not in said
    # in a folder it does not spoil the rest
    put(tmp_path / "good.pdb", *helix())
    chains, report = read([path, tmp_path / "good.pdb"])
    assert len(chains) == 1 and list(report.refused.values()) == [said]


def test_every_reason_is_its_own(tmp_path):
    """No two of the malformed files are refused with the same words, but for those that are the same fault."""
    said = []
    for case, (name, make, _) in FILES.items():
        path = tmp_path / name
        path.write_bytes(make(tmp_path))
        with pytest.raises(ValueError) as found:
            read(path)
        said.append((case, re.sub(r"\d+", "#", str(found.value).split(": ", 1)[1])))
    kinds = {text for _, text in said}
    assert len(FILES) > 50 and len(kinds) > 40


SETTINGS: list[tuple[dict, str]] = [
    ({"gaps": "refuse"}, "chain A is broken between residues A 4 and A 6, whose CA are"),
    ({"min_length": 30}, "nothing is left of 1 files"),
    ({"min_length": 5, "max_length": 4}, "expected 1 <= min_length <= max_length, got min_length=5, max_length=4"),
    ({"min_length": 0}, "expected 1 <= min_length"),
    ({"atoms": "CA"}, "atoms must be one of ca, backbone, got 'CA'"),
    ({"gaps": "fill"}, "gaps must be one of split, mask, refuse, got 'fill'"),
    ({"models": "last"}, "models must be one of first, all, got 'last'"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings_that_leave_nothing_or_make_no_sense(settings, message, tmp_path):
    broken = [x for x in helix() if x[22:26] != "   5"]
    with pytest.raises(ValueError, match=re.escape(message)):
        read(put(tmp_path / "a.pdb", *broken), **settings)


def test_a_backbone_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="only incomplete ones such as CA alone; read atoms='ca'"):
        read(put(tmp_path / "a.pdb", *CA), atoms="backbone")


def test_places_without_structures(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is an empty folder; expected files that end in .pdb"):
        read(tmp_path / "empty")
    put(tmp_path / "notes.md", "no structure")
    with pytest.raises(ValueError, match=r"holds 1 files, none of them a structure \(.md\)"):
        read(tmp_path)
    with pytest.raises(ValueError, match="at least one file, got an empty list"):
        read([])
    with pytest.raises(FileNotFoundError, match="There is no file .*nowhere; 1 of 2 are missing"):
        read([put(tmp_path / "good.pdb", *helix()), tmp_path / "nowhere"])
    (tmp_path / "good.pdb").unlink()
    put(tmp_path / "bad.pdb", "END")
    with pytest.raises(ValueError, match=r"nothing is left of 1 files.*(?s:.)*bad.pdb: holds no atoms"):
        read(tmp_path)


# -- ensembles -------------------------------------------------------------------------------------------


def models(*parts: list[str]) -> list[str]:
    return [line for k, part in enumerate(parts, 1) for line in (f"MODEL     {k:4d}", *part, "ENDMDL")]


ENSEMBLES: dict[str, tuple[list[str], str]] = {
    "one model": (helix(), "holds one model; an ensemble needs several"),
    "models of different lengths": (models(helix(), helix(7)), "model 2 has 7 residues, the first has 8"),
    "models of different residues": (
        models(helix(), [x.replace("ALA", "SER") if x[22:26] == "   2" else x for x in helix()]),
        "residue 2 of model 2 has residue 15, in the first model 0",
    ),
    "models of different numbers": (models(helix(), helix(start=2)), "residue 1 of model 2 has number 2"),
    "a model without protein": (models(helix(), DNA), "model 2: holds nucleic acids"),
    "a torn chain": (
        models(helix(), [*helix()[:16], *helix(start=1, shift=50.0)[16:]]),
        "a chain is torn in 1 of 2 models; in model 2, CA 4 and 5 are",
    ),
    "the first model in nanometres": (models(scaled(0.1), scaled(0.1)), "these are nanometres"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENSEMBLES)
def test_models_that_are_no_ensemble(case, tmp_path):
    lines, message = ENSEMBLES[case]
    with pytest.raises(ValueError, match=re.escape(message)) as found:
        read_ensemble(put(tmp_path / "a.pdb", *lines))
    assert str(found.value).startswith("a.pdb: ")


def dcd(path: Path, xyz: np.ndarray) -> Path:
    from biotite.structure.io.dcd import DCDFile

    file = DCDFile()
    file.set_coord(xyz.astype(np.float32))
    file.write(str(path))
    return path


def frames(count: int = 4) -> np.ndarray:
    one = np.array([[float(x[k : k + 8]) for k in (30, 38, 46)] for x in helix()])
    return one + 0.01 * np.arange(count)[:, None, None]


def test_trajectories_that_do_not_fit_or_are_damaged(tmp_path):
    top = put(tmp_path / "top.pdb", *helix())
    good = dcd(tmp_path / "good.dcd", frames())
    assert read_ensemble(good, top).xyz.shape == (4, 8, 3)

    def refused(message: str, path: Path, topology: Path | None = top, **more) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
            read_ensemble(path, topology, **more)

    refused("a trajectory tells no residues; give topology=", good, None)
    refused("There is no file", good, tmp_path / "nowhere.pdb")
    refused("There is no file", tmp_path / "nowhere.dcd")
    refused("good.dcd has 32 atoms and small.pdb 28", good, put(tmp_path / "small.pdb", *helix(7)))
    refused("a topology is for trajectories (.xtc, .dcd, .trr); leave it out", top, top)
    refused("stride of at least 1, got 1 files and 0", good, stride=0)
    refused("expected one structure file with several models", [top, top], None)
    refused("top.pdb: expected a trajectory (.xtc, .dcd, .trr), like the others", [good, top])
    whole = good.read_bytes()
    cut = tmp_path / "cut.dcd"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    refused("cut.dcd: is cut short: its header promises 4 frames", cut)
    for kind in ("dcd", "xtc", "trr"):
        bad = tmp_path / f"bad.{kind}"
        bad.write_bytes(garbage())
        refused(f"bad.{kind}: is no {kind.upper()} trajectory, or damaged or cut short", bad)
        bad.write_bytes(b"")
        refused(f"bad.{kind}: is empty (0 bytes)", bad)
    nan = frames()
    nan[2, 5] = np.nan
    refused("nan.dcd: 1 frames hold NaN or infinity, the first is 3", dcd(tmp_path / "nan.dcd", nan))
    refused("nm.dcd: frame 1: neighbouring CA are 0.38 apart", dcd(tmp_path / "nm.dcd", frames() / 10))
    wrapped = frames()
    wrapped[3, 20:] += 30  # the rest of the chain at the other side of the box
    refused("in frame 4, CA 5 and 6 are", dcd(tmp_path / "box.dcd", wrapped))
    assert struct.unpack("<i", whole[8:12])[0] == 4  # frames, where the check looks for them
