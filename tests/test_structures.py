"""Structure files in: one protein from every format, the right atoms of each residue, chains cut where broken."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from structure_lines import atom, cif, helix, put

from scifm.data.structures import NAMES, Chain, Report, read, to_batch
from scifm.data.structures.atoms import SUFFIXES, format_of, read_atoms
from scifm.data.structures.residues import kind_of
from scifm.geometry.runs import joined

# -- real files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atoms", ["ca", "backbone"])
def test_one_protein_is_the_same_from_every_format(scifm_data, atoms):
    folder = scifm_data("protein_formats")
    found = {s: read(folder / f"1aki.{s}", atoms=atoms) for s in ("pdb", "cif", "bcif", "gro")}
    (pdb,), report = found["pdb"]
    assert pdb.name == "1aki_A" and pdb.xyz.shape == ((129, 3) if atoms == "ca" else (129, 4, 3))
    assert report.residues == 129 and report.dropped == {"water molecules": 78} and not report.notes
    for suffix, ((chain,), other) in found.items():
        assert np.abs(chain.xyz - pdb.xyz).max() <= (0.00501 if suffix == "gro" else 0), suffix  # GRO has 0.001 nm
        for name in ("residue", "position", "number", "insertion"):
            assert np.array_equal(getattr(chain, name), getattr(pdb, name)), (suffix, name)
        assert other == report


def test_an_independent_reader_finds_the_same_atoms(scifm_data):
    import gemmi
    from biotite.structure.io.gro import GROFile

    folder = scifm_data("protein_formats")
    (chain,), _ = read(folder / "1aki.pdb", atoms="backbone")
    residues = [r for r in gemmi.read_structure(str(folder / "1aki.pdb"))[0]["A"] if r.name != "HOH"]
    assert [r.name for r in residues] == [NAMES[k] for k in chain.residue]
    theirs = [[r.find_atom(name, "*").pos.tolist() for name in ("N", "CA", "C", "O")] for r in residues]
    assert np.array_equal(chain.xyz, np.array(theirs))
    gro = GROFile.read(str(folder / "1aki.gro")).get_structure()[0]
    (chain,), _ = read(folder / "1aki.gro")
    assert np.allclose(chain.xyz, gro.coord[(gro.atom_name == "CA") & (gro.res_name != "CA")], atol=1e-5)


def test_raw_files_of_the_benchmark_agree_with_its_arrays(scifm_data):
    """The arrays were made by another program from the same files: coordinates, residues, numbers, cuts."""
    folder = scifm_data("proteins_bm5")
    with np.load(folder / "bm5_backbone.npz", allow_pickle=False) as file:
        wanted = {k: file[k] for k in file}
    place = {str(n): i for i, n in enumerate(wanted["names"])}
    files = sorted((folder / "pdb").glob("*.pdb.gz"))
    assert len(files) == 60
    for path in files:
        chains, _ = read(path, atoms="backbone")
        i = place[path.name.removesuffix(".pdb.gz")]
        rows = slice(wanted["offset"][i], wanted["offset"][i + 1])
        assert np.allclose(np.concatenate([c.xyz for c in chains]), wanted["backbone"][rows], atol=1e-3), path.name
        residue, theirs = np.concatenate([c.residue for c in chains]), wanted["aatype"][rows]
        assert np.array_equal(residue[theirs < 20], theirs[theirs < 20])  # to whom a modified residue is unknown
        assert np.array_equal(np.concatenate([c.number for c in chains]), wanted["resid"][rows])
        pieces = np.concatenate([np.full(len(c), k) for k, c in enumerate(chains)])
        cuts = np.diff(wanted["segment"][rows]) != 0
        assert np.array_equal(np.diff(pieces) != 0, cuts | (wanted["chain"][rows][1:] != wanted["chain"][rows][:-1]))


def test_every_structure_file_at_hand_loads_or_is_refused_with_its_reason(scifm_data):
    root = scifm_data("protein_formats").parent
    files = [p for p in sorted(root.glob("protein*/**/*")) if p.is_file()]
    files += [p for p in sorted(root.glob("*/**/*")) if format_of(p) and p not in files]
    refused = {}
    for path in files:
        try:
            chains, report = read(path)
            assert chains and str(report) and all(np.isfinite(c.xyz).all() for c in chains)
        except ValueError as error:
            assert str(error).startswith(path.name) and len(str(error)) > len(path.name) + 20
            refused[path.name] = str(error)
    structures = [p for p in files if format_of(p)]
    assert len(structures) >= 75 and sum(p.name.endswith(".pdb.gz") for p in structures) == 60
    assert [p.name for p in structures if p.name in refused] == ["hetatm.pdb"]
    assert "holds no protein, only molecules of unknown names (1)" in refused["hetatm.pdb"]
    assert "is a trajectory" in refused["1l2y.xtc"]


def test_the_likeliest_of_alternate_residues_is_taken(scifm_data):
    (chain,), report = read(scifm_data("protein_formats") / "altloc.cif", atoms="backbone")
    assert [NAMES[k] for k in chain.residue] == ["PRO"]  # occupancy 0.6, of two SER 0.2
    assert list(report.notes.values()) == [1] and "alternate positions" in next(iter(report.notes))


def test_numbers_of_authors_and_a_sugar_beside(scifm_data):
    (chain,), report = read(scifm_data("protein_formats") / "res_ids.cif")
    assert chain.number.tolist() == [0, 1, 2] and [NAMES[k] for k in chain.residue] == ["SER", "ASP", "GLN"]
    assert report.dropped == {"ligands, ions, sugars and caps": 18}


def test_all_models_or_the_first(scifm_data):
    path = scifm_data("protein_ensembles") / "2k39_ca_116models.pdb"
    (first,), report = read(path)
    every, whole = read(path, models="all")
    assert report.dropped == {"models beyond the first": 115} and not whole.dropped
    assert len(every) == 116 and [c.model for c in every] == list(range(116))
    assert np.array_equal(every[0].xyz, first.xyz) and not np.array_equal(every[1].xyz, first.xyz)


def test_a_folder_is_read_with_what_is_wrong_in_it(scifm_data, tmp_path):
    folder = scifm_data("protein_formats")
    for name in ("1aki.pdb", "hetatm.pdb", "README.md"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "1aki.cif.gz").write_bytes(gzip.compress((folder / "1aki.cif").read_bytes()))
    chains, report = read(tmp_path)
    assert [c.file.name for c in chains] == ["1aki.pdb", "1aki.cif.gz"] and report.files == 2
    assert list(report.refused) == [str(tmp_path / "hetatm.pdb")]
    text = str(report)
    assert "2 files gave 2 chains of 258 residues" in text and "water molecules (156)" in text
    assert "refused: 1 file\n  hetatm.pdb: holds no protein" in text
    assert "files that are no structures by their names (1)" in text
    _, listed = read([tmp_path / "1aki.pdb", tmp_path / "hetatm.pdb"])
    assert listed.chains == 1 and len(listed.refused) == 1


# -- what a file says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ALA", ("protein", 0)), ("VAL", ("protein", 19)), ("MSE", ("protein", 12)), ("SEP", ("protein", 15)),
        ("HSD", ("protein", 8)), ("CYX", ("protein", 4)), ("LYSH", ("protein", 11)), ("UNK", ("protein", 20)),
        ("SEC", ("protein", 20)), ("DAL", ("D-amino acid", 20)), ("HOH", ("water", -1)), ("SOL", ("water", -1)),
        ("DA", ("nucleic", -1)), ("U", ("nucleic", -1)), ("NAG", ("other", -1)), ("CA", ("other", -1)),
        ("ACE", ("other", -1)), ("Q1Q", ("unlisted", -1)),
    ],
)  # fmt: skip
def test_residues_are_what_they_are(name, kind):
    assert kind_of(name) == kind


def test_the_label_of_highest_occupancy_is_taken_for_the_whole_residue(tmp_path):
    lines = helix(5)
    moved = []
    for i, line in enumerate(lines):
        if 8 <= i < 12:  # residue 3: A has 0.4, B 0.6; but the CA alone are tied
            a, b = (0.5, 0.5) if line[13:15] == "CA" else (0.4, 0.6)
            xyz = np.array([float(line[k : k + 8]) for k in (30, 38, 46)])
            for label, share, off in (("A", a, 0.0), ("B", b, 0.1)):
                moved.append(atom(line[13:16].strip(), "ALA", 3, xyz + off, altloc=label, occupancy=share))
        else:
            moved.append(line)
    (chain,), _ = read(put(tmp_path / "a.pdb", *moved), atoms="backbone")
    (plain,), _ = read(put(tmp_path / "b.pdb", *lines), atoms="backbone")
    assert np.allclose(chain.xyz - plain.xyz, 0.1 * (np.arange(5) == 2)[:, None, None], atol=2e-3)
    tied = [line.replace("  0.40", "  0.50").replace("  0.60", "  0.50") for line in moved]
    (chain,), report = read(put(tmp_path / "c.pdb", *tied), atoms="backbone")
    assert np.array_equal(chain.xyz, plain.xyz) and list(report.notes.values()) == [1]  # the first label


def test_an_atom_of_one_label_only_is_taken_from_it(tmp_path):
    lines = helix(4)
    lines[5] = lines[5][:16] + "A" + lines[5][17:54] + "  0.30" + lines[5][60:]
    lines[6] = lines[6][:16] + "B" + lines[6][17:54] + "  0.70" + lines[6][60:]
    (chain,), _ = read(put(tmp_path / "a.pdb", *lines), atoms="backbone")
    assert len(chain) == 4 and np.isfinite(chain.xyz).all()


def test_insertion_codes_follow_each_other(tmp_path):
    lines = helix(6)
    for i, (number, code) in enumerate([(51, " "), (52, " "), (52, "A"), (52, "B"), (53, " "), (54, " ")]):
        for k in range(4):
            lines[4 * i + k] = f"{lines[4 * i + k][:22]}{number:4d}{code}{lines[4 * i + k][27:]}"
    (chain,), report = read(put(tmp_path / "a.pdb", *lines))
    assert chain.number.tolist() == [51, 52, 52, 52, 53, 54] and "".join(chain.insertion) == "AB"
    assert chain.position.tolist() == list(range(6)) and not report.notes


@pytest.mark.parametrize("sequence", [False, True])
def test_gaps_are_split_masked_or_refused(tmp_path, sequence):
    lines = helix(12)
    del lines[4 * 5 : 4 * 8]  # residues 6, 7 and 8
    path = put(tmp_path / "a.pdb", *lines)
    if sequence:  # mmCIF knows how many are missing, whatever the authors' numbers say
        path = cif(tmp_path / "a.cif", lines, number=lambda n: n if n < 6 else n - 3)
    pieces, report = read(path)
    assert [len(c) for c in pieces] == [5, 4] and [c.name for c in pieces] == ["a_A_1", "a_A_2"]
    assert [c.position.tolist() for c in pieces] == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]
    assert report.notes == {"gaps, split there": 1, "residues missing there, by their numbers": 3}
    (chain,), report = read(path, gaps="mask")
    assert chain.name == "a_A" and chain.position.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert report.notes["gaps, bridged by a jump of the position"] == 1
    with pytest.raises(ValueError, match=r"a\.\w+: chain A is broken between residues A 5 and A"):
        read(path, gaps="refuse")
    assert len(read(path, min_length=5)[0]) == 1 and len(read(path, max_length=4)[0]) == 1
    _, report = read(path, min_length=5)
    assert report.dropped == {"chains shorter than 5": 1} and report.residues == 5


def test_a_break_whose_numbers_skip_none_is_no_bond(tmp_path):
    (chain,), report = read(put(tmp_path / "a.pdb", *helix(5), *helix(4, start=6, shift=30.0)), gaps="mask")
    assert chain.position.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert report.notes == {"gaps, bridged by a jump of the position": 1}  # nobody says that residues are missing
    assert (~joined(to_batch([chain]))).nonzero().flatten().tolist() == [4]


def test_a_number_that_is_skipped_without_a_break_is_no_gap(tmp_path):
    lines = [f"{x[:22]}{int(x[22:26]) + 10 * (int(x[22:26]) > 4):4d}{x[26:]}" for x in helix(8)]
    (chain,), report = read(put(tmp_path / "a.pdb", *lines))
    assert chain.position.tolist() == list(range(8)) and not report.notes and chain.number[-1] == 18


def test_a_bond_is_one_of_c_and_n_where_these_are_there(tmp_path):
    """CA that are 3.8 Å apart are neighbours; with C and N 2.4 Å apart they are not."""
    lines = []
    for i in range(4):
        far = 3.8 * i + (0.0 if i < 2 else 0.1)
        along = {"N": far - (1.2 if i != 2 else 0.2), "CA": far, "C": far + 1.2, "O": far + 1.3}
        lines += [atom(name, "ALA", i + 1, (x, 1.0 * (name == "O"), 0.0)) for name, x in along.items()]
    assert [len(c) for c in read(put(tmp_path / "a.pdb", *lines))[0]] == [2, 2]
    only = [x for x in lines if x[12:16].strip() == "CA"]
    assert [len(c) for c in read(put(tmp_path / "b.pdb", *only))[0]] == [4]


def test_residues_without_their_atoms_are_dropped_and_counted(tmp_path):
    lines = helix(8)
    path = put(tmp_path / "a.pdb", *(x for i, x in enumerate(lines) if i not in (0, 4 * 3 + 1)))  # a N, and a CA inside
    chains, report = read(path)
    assert [len(c) for c in chains] == [3, 4] and report.dropped == {"residues without CA": 1}
    chains, report = read(path, atoms="backbone")
    assert [len(c) for c in chains] == [2, 4] and report.dropped == {"residues with an incomplete backbone": 2}


def test_modified_residues_stay_in_the_chain_and_free_ones_do_not(tmp_path):
    lines = [x.replace("ATOM  ", "HETATM").replace("ALA", "MSE") if x[22:26] == "   3" else x for x in helix(6)]
    lines.append(atom("CA", "GLY", 301, (40, 0, 0), record="HETATM"))  # a ligand
    lines.append(atom("CA", " CA", 302, (50, 0, 0), record="HETATM", element="CA"))  # calcium
    lines += [atom("O", "HOH", 400 + i, (60, i, 0), record="HETATM") for i in range(3)]
    (chain,), report = read(put(tmp_path / "a.pdb", *lines))
    assert [NAMES[k] for k in chain.residue] == ["ALA", "ALA", "MET", "ALA", "ALA", "ALA"]
    assert report.notes == {"MSE read as MET": 1}
    assert report.dropped == {"water molecules": 3, "ligands, ions, sugars and caps": 1, "free amino acids": 1}


def test_an_unlisted_amino_acid_is_known_by_its_bonds(tmp_path):
    lines = [x.replace("ALA", "Q1Q") if x[22:26] == "   3" else x for x in helix(6)]
    (chain,), report = read(put(tmp_path / "a.pdb", *lines))
    assert chain.residue.tolist() == [0, 0, 20, 0, 0, 0] and report.notes == {"Q1Q read as unknown": 1}
    far = [x[:30] + f"{90 + 5 * i:8.3f}" + x[38:] if "Q1Q" in x else x for i, x in enumerate(lines)]
    chains, report = read(put(tmp_path / "b.pdb", *far))
    assert len(chains) == 2 and report.dropped == {"molecules of unknown names": 1}


def test_nucleic_acids_beside_a_protein_are_left_out(tmp_path):
    more = [atom(name, " DA", 10 + i, (30 + 5 * i, k, 0), chain="B") for i in range(3) for k, name in enumerate("PC")]
    (chain,), report = read(put(tmp_path / "a.pdb", *helix(5), *more))
    assert len(chain) == 5 and report.dropped == {"nucleotides": 3}


def test_chains_without_names_are_told_apart_where_numbers_begin_again(tmp_path):
    two = put(tmp_path / "a.pdb", *helix(5, chain=" "), *helix(4, chain=" ", shift=30.0))
    chains, _ = read(two)
    assert [(c.chain, len(c)) for c in chains] == [("A", 5), ("B", 4)]
    named = [x + "" for x in helix(5, chain=" ")]
    segments = [f"{x[:72]}PROA{x[76:]}" for x in named]  # CHARMM names segments
    assert [c.chain for c in read(put(tmp_path / "b.pdb", *segments))[0]] == ["PROA"]


@pytest.mark.parametrize("gaps", ["split", "mask"])
def test_chains_without_names_are_told_apart_by_ter_where_numbers_go_on(tmp_path, gaps):
    nameless = [line[:21] + " " + line[22:] for line in [*helix(5), "TER", *helix(4, start=6, shift=30.0), "TER"]]
    chains, report = read(put(tmp_path / "amber.pdb", *nameless), gaps=gaps)
    assert [c.name for c in chains] == ["amber_A", "amber_B"] and not report.notes
    assert to_batch([chains]).nodes["chain"].tolist() == [0] * 5 + [1] * 4
    whole = [line[:21] + " " + line[22:] for line in [*helix(9)[:20], "TER", *helix(9)[20:]]]  # bonded all the same
    assert len(read(put(tmp_path / "whole.pdb", *whole))[0]) == 1


def test_positions_that_were_not_seen_are_counted(tmp_path):
    lines = helix(5)
    lines[5] = lines[5][:54] + "  0.00" + lines[5][60:]
    chains, report = read(put(tmp_path / "a.pdb", *lines))
    assert len(chains[0]) == 5 and report.notes == {"residues with a position of occupancy 0": 1}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_any_way(tmp_path, end):
    (tmp_path / "a.pdb").write_bytes(end.join(line.encode() for line in helix(5)))
    assert len(read(tmp_path / "a.pdb")[0][0]) == 5


def test_chains_that_are_laid_out_in_turns_are_put_together(tmp_path):
    a, b = helix(5), helix(5, chain="B", shift=30.0)
    mixed = [line for i in range(5) for part in (a, b) for line in part[4 * i : 4 * i + 4]]
    chains, report = read(put(tmp_path / "a.pdb", *mixed))
    assert [(c.chain, len(c)) for c in chains] == [("A", 5), ("B", 5)] and not report.notes
    assert np.array_equal(chains[0].rows, [8 * i + 1 for i in range(5)])  # of the file, for a trajectory


@pytest.mark.parametrize(("text", "number"), [("9999", 9999), ("A000", 10000), ("A001", 10001), ("a000", 1223056)])
def test_numbers_beyond_four_columns_are_hybrids_of_36(tmp_path, text, number):
    lines = [x[:22] + text + x[26:] for x in helix(1)]
    assert read(put(tmp_path / "a.pdb", *lines))[0][0].number.tolist() == [number]


def test_terminal_oxygens_of_force_fields(tmp_path):
    lines = helix(3)
    lines[-1] = lines[-1].replace(" O  ", " OT1")
    lines.append(lines[-1].replace(" OT1", " OT2"))
    (chain,), _ = read(put(tmp_path / "a.pdb", *lines), atoms="backbone")
    assert len(chain) == 3


def test_a_gro_file_of_any_precision_and_several_frames(tmp_path):
    frame = [f"{i + 1:5d}ALA  {'CA':>5s}{i + 1:5d}{0.38 * i:10.5f}{0:10.5f}{0.1234567:10.5f}" for i in range(4)]
    text = ["water free", "4", *frame, "  1.0 1.0 1.0"]
    chains, _ = read(put(tmp_path / "a.gro", *text, *text), models="all")
    assert len(chains) == 2
    assert np.allclose(chains[0].xyz, [[3.8 * i, 0, 1.2346] for i in range(4)], atol=1e-9)


# -- batches ---------------------------------------------------------------------------------------------


def piece(n: int, atoms: str = "ca") -> Chain:
    rng, k = np.random.default_rng(n), np.arange(n)
    shape = (n, 3) if atoms == "ca" else (n, 4, 3)
    return Chain(f"x{n}", rng.normal(size=shape) + 50, k % 21, 2 * k, k, np.full(n, ""), "A", 0, k)


def test_a_batch_of_chains_is_ragged_centred_and_says_what_its_rows_are():
    batch = to_batch([piece(1), piece(5), [piece(3), piece(2)]])
    assert batch.counts.tolist() == [1, 5, 5] and batch.x.dtype == torch.float32 and not batch.dense
    assert batch.nodes["chain"].tolist() == [0] * 6 + [0, 0, 0, 1, 1]
    assert batch.nodes["position"].tolist() == [0, 0, 2, 4, 6, 8, 0, 2, 4, 0, 2]
    assert set(batch.nodes) == {"chain", "position", "residue"}
    assert all(v.dtype == torch.int64 for v in batch.nodes.values())
    for x in batch.split():
        assert x.mean(0).abs().max() < 1e-5
    given = to_batch([piece(5)], centre=False, dtype=torch.float64)
    assert np.array_equal(given.x.numpy(), piece(5).xyz)


def test_a_backbone_has_four_rows_per_residue():
    batch = to_batch([piece(3, "backbone"), piece(2, "backbone")], centre=False, dtype=torch.float64)
    assert batch.counts.tolist() == [12, 8] and batch.nodes["atom"].tolist() == [0, 1, 2, 3] * 5
    assert batch.nodes["residue"].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 4 + [1] * 4
    assert np.array_equal(batch.x[:12].numpy(), piece(3, "backbone").xyz.reshape(-1, 3))


def test_batches_of_nothing_or_of_mixed_kinds_are_refused():
    for wrong in ([], [[]]):
        with pytest.raises(ValueError, match="at least one chain in each sample"):
            to_batch(wrong)
    with pytest.raises(ValueError, match="some chains hold CA and some the backbone"):
        to_batch([piece(3), piece(3, "backbone")])


def test_reports_add_up():
    one, two = Report(1, 2, 30, {"a": 1}, {"b": 2}), Report(1, 1, 5, {"a": 3, "c": 1}, {}, {"x": "x: bad"})
    assert Report.join([one, two]) == Report(2, 3, 35, {"a": 4, "c": 1}, {"b": 2}, {"x": "x: bad"})
    many = Report(refused={str(i): f"{i}: bad" for i in range(9)})
    assert "... and 4 more" in str(many) and str(many).count("bad") == 5


def test_suffixes_and_order_of_atoms(scifm_data, tmp_path):
    assert [format_of(Path(f"x{s}.gz")) for s in SUFFIXES] == list(SUFFIXES) and format_of(Path("x.PDB")) == ".pdb"
    assert format_of(Path("pdb")) == format_of(Path("x.txt")) == format_of(Path(".gz")) == ""
    atoms = read_atoms(scifm_data("protein_formats") / "1aki.pdb")
    assert len(atoms) == 1079 and (np.diff(atoms.where) > 0).all()


def test_the_package_loads_its_readers_when_they_are_needed():
    code = "import sys; from scifm.data import structures; print(*{m.partition('.')[0] for m in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in run.stdout.split() and not {"gemmi", "biotite", "ase", "scipy"} & set(run.stdout.split())
