"""The data set of chains: every chain once, relatives in one split, and the Gaussian anchors of its reference table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from structure_lines import helix, put

from scifm.data import load_dataset

MODULE = load_dataset("proteins")
PARTS = ("train", "valid", "test")


@pytest.fixture
def data(scifm_data):
    scifm_data("proteins_bm5")
    return MODULE.proteins()


def test_the_segments_of_the_benchmark(data, scifm_data):
    assert data.unit == "Å" and [len(getattr(data, k)) for k in PARTS] == [592, 66, 165]
    assert [p.name for p in data.files] == ["bm5_segments.npz"] and set(data.writers) == {".pdb", ".cif", ".xyz"}
    for part in PARTS:
        batch = getattr(data, part)
        assert batch.event == (3,) and batch.x.dtype == torch.float32 and not batch.dense
        assert 48 <= int(batch.counts.min()) and int(batch.counts.max()) <= 256
        assert set(batch.nodes) == {"residue", "chain", "position"}
        assert batch.total(batch.x).abs().max() < 0.05  # centred
        step = batch.x.diff(dim=0).norm(dim=1)[batch.index.diff() == 0]  # type: ignore[union-attr]
        assert 2.5 < float(step.min()) and float(step.max()) < 4.3 and abs(float(step.median()) - 3.8) < 0.02
    with np.load(scifm_data("proteins_bm5") / "bm5_segments.npz", allow_pickle=False) as file:
        length = np.diff(file["offset"])
    wanted = np.sort(length[(length >= 48) & (length <= 256)])
    assert np.array_equal(np.sort(torch.cat([getattr(data, k).counts for k in PARTS]).numpy()), wanted)


def words(sequence: np.ndarray) -> set[bytes]:
    return {sequence[i : i + 5].tobytes() for i in range(len(sequence) - 4)}


def test_no_test_chain_has_a_relative_in_training(data):
    """By sets of Python, chain against chain."""
    parts = {}
    for part in PARTS:
        batch = getattr(data, part)
        parts[part] = [words(s.numpy()) for s in batch.nodes["residue"].split(batch.counts.tolist())]
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for one in parts[a]:
            assert all(len(one & two) <= 0.2 * min(len(one), len(two)) for two in parts[b])


def test_chains_by_themselves_have_relatives_in_training(scifm_data):
    """What `split="chain"` is warned of: the set holds each protein alone and in its complex."""
    scifm_data("proteins_bm5")
    data = MODULE.proteins(split="chain")
    assert [len(getattr(data, k)) for k in PARTS] == [592, 66, 165]
    train, test = (
        [words(s.numpy()) for s in b.nodes["residue"].split(b.counts.tolist())] for b in (data.train, data.test)
    )
    copies = sum(any(len(one & two) > 0.8 * min(len(one), len(two)) for two in train) for one in test)
    assert copies > 60


@pytest.mark.parametrize(("split", "wanted"), [("chain", (5.38, 3.154, 3.079)), ("family", (5.485, 3.156, 3.067))])
def test_gaussian_anchors(split, wanted, scifm_data):
    """Bits/dim of the test: isotropic; harmonic chain of 3.8 Å, no parameter; power law in the cosine basis, two."""
    from scipy.fft import dct

    scifm_data("proteins_bm5")
    data = MODULE.proteins(split=split)

    def modes(batch):
        for x in batch.split():
            k = np.arange(1, len(x))
            yield (
                4 * np.sin(np.pi * k / (2 * len(x))) ** 2,
                (dct(x.double().numpy(), axis=0, norm="ortho")[1:] ** 2).sum(1),
            )

    def bits(variance) -> float:
        nats = dims = 0.0
        for lam, power in modes(data.test):
            v = variance(lam)
            nats += float((0.5 * power / v + 1.5 * np.log(2 * math.pi * v)).sum())
            dims += 3 * len(lam)
        return nats / dims / math.log(2)

    lam, power = (np.concatenate(v) for v in zip(*modes(data.train), strict=True))
    fits = [(float(np.mean(power * lam**b)) / 3, b) for b in np.arange(1.1, 1.5, 0.01)]
    scale, b = min(fits, key=lambda f: float(np.mean(np.log(f[0] * lam ** -f[1]))))
    variance = float(power.sum()) / (3 * len(power))
    laws = (lambda lam: variance + 0 * lam, lambda lam: 3.8**2 / (3 * lam), lambda lam: scale * lam**-b)
    assert [bits(law) for law in laws] == pytest.approx(wanted, abs=0.01) and b == pytest.approx(1.27, abs=0.02)


def test_the_backbone_is_four_rows_of_the_same_chains(scifm_data, data):
    scifm_data("proteins_bm5")
    four = MODULE.proteins(atoms="backbone")
    assert torch.equal(four.test.counts, 4 * data.test.counts) and set(four.test.nodes) >= {"atom"}
    ca = four.test.nodes["atom"] == 1
    assert torch.equal(four.test.nodes["residue"][ca], data.test.nodes["residue"])
    x, y = (b.diff(dim=0) for b in (four.test.x[ca], data.test.x))
    inside = data.test.index.diff() == 0
    assert torch.allclose(x[inside], y[inside], atol=1e-4)
    n, c = (four.test.x[four.test.nodes["atom"] == k] for k in (0, 2))
    assert float((n[1:] - c[:-1]).norm(dim=1)[inside].max()) < 2.0


def test_a_folder_of_files(scifm_data):
    data = MODULE.proteins(scifm_data("proteins_bm5") / "pdb", min_length=40)
    assert sum(len(getattr(data, k)) for k in PARTS) == 47 and len(data.files) > 40
    assert "2 of a sequence that was there already left out" in data.summary
    assert "49 files gave 49 chains" in data.summary and "MSE read as MET (2)" in data.summary
    assert all(int(getattr(data, k).counts.min()) >= 40 for k in PARTS)


def test_the_split_follows_the_seed_and_not_the_names_of_files(scifm_data, tmp_path):
    source = scifm_data("proteins_bm5") / "pdb"
    for i, path in enumerate(sorted(source.glob("*.pdb.gz"))[::-1]):
        (tmp_path / f"{i:03d}.pdb.gz").write_bytes(path.read_bytes())

    def names(data) -> list[set[bytes]]:
        parts = (getattr(data, k) for k in PARTS)
        return [{s.numpy().tobytes() for s in b.nodes["residue"].split(b.counts.tolist())} for b in parts]

    one, other = MODULE.proteins(source), MODULE.proteins(tmp_path)
    assert names(one) == names(other) and names(one) != names(MODULE.proteins(source, seed=1))


def sequences(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 20, n) for n in lengths]


def test_families_are_related_through_others():
    a, b = sequences(100, 60)
    chain = [np.concatenate([a[i * 20 : i * 20 + 40]]) for i in range(4)]  # each shares half with the next
    found = MODULE.families([*chain, b, a[:3], a[:3]])
    assert len(set(found[:4])) == 1 and found[4] != found[0] and found[5] == found[6]


def test_families_stay_whole_and_every_part_gets_one():
    found = sequences(*range(50, 80))
    for family in (np.arange(30), np.arange(30) // 10, np.array([0] * 28 + [1, 2]), np.arange(30) % 4):
        rows = MODULE.deal(family, found, 0)
        assert sorted(i for k in PARTS for i in rows[k]) == list(range(30)) and all(rows.values())
        owners = [{int(family[i]) for i in rows[k]} for k in PARTS]
        assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    assert len(MODULE.deal(np.arange(30), found, 0)["test"]) == 6


def test_what_cannot_be_split_or_is_not_there(tmp_path, monkeypatch):
    path = put(tmp_path / "a.pdb", *helix(60))
    with pytest.raises(ValueError, match="1 different sequences in 1 families cannot be split in three; add"):
        MODULE.proteins(path)
    with pytest.raises(ValueError, match="split must be 'family' or 'chain', got 'random'"):
        MODULE.proteins(split="random")
    for wrong in ({"atoms": "all"}, {"min_length": 9, "max_length": 8}):
        with pytest.raises(ValueError, match="expected atoms='ca' or 'backbone' and 1 <= min_length"):
            MODULE.proteins(**wrong)
    monkeypatch.delenv("SCIFM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"Or give a folder of PDB, mmCIF or BinaryCIF files.*BM5-clean.*rcsb"):
        MODULE.proteins()


def test_other_values_and_lengths_that_nobody_has(scifm_data, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no segment of bm5_segments.npz has 600 to 700 residues"):
        MODULE.proteins(min_length=600, max_length=700)
    with np.load(scifm_data("proteins_bm5") / "bm5_segments.npz", allow_pickle=False) as file:
        arrays = {k: file[k] for k in file}
    arrays["backbone"] = arrays["backbone"] + np.float32(1)
    (tmp_path / "proteins_bm5").mkdir()
    np.savez(tmp_path / "proteins_bm5" / "bm5_segments.npz", **arrays)
    monkeypatch.setenv("SCIFM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="holds other values than the published ones"):
        MODULE.proteins()
