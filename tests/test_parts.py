"""Chunks on the disk: whole or not there, never those of another job, gone when the output is in its place."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from scifm.parts import Parts, checksum, made

SETTINGS = {"seed": 0, "solver": "Solver()", "flow": "a" * 64, "trace": None}


def numbers(samples: range, shift: float = 0.0) -> dict[str, torch.Tensor]:
    x = torch.arange(samples.start, samples.stop, dtype=torch.float64)
    return {"x": x[:, None] + shift, "nfe": x.long()}


def never(*_: object) -> dict[str, torch.Tensor]:
    raise AssertionError("made again")


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in wanted.items()
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output of which eight samples are there, in two chunks, after a first process."""
    with Parts.of(tmp_path / "x.npz", SETTINGS) as parts:
        for samples in (range(4), range(4, 8)):
            assert same(parts(samples, lambda samples=samples: numbers(samples)), numbers(samples))
    return tmp_path / "x.npz"


def chunk(output: Path, first: int) -> Path:
    (found,) = (output.parent / ".x.npz.parts").glob(f"{first:010d}-*")
    return found


def test_a_chunk_is_made_once(output: Path) -> None:
    with Parts.of(output, dict(reversed(SETTINGS.items()))) as parts:  # the order of the settings says nothing
        assert parts.done == 8
        assert same(parts(range(4), never), numbers(range(4)))
        assert same(parts(range(4, 8), never), numbers(range(4, 8)))
        assert same(parts(range(8, 9), lambda: numbers(range(8, 9))), numbers(range(8, 9)))
        assert parts.done == 9
        parts.remove()
    assert list(output.parent.iterdir()) == []


def test_nothing_is_kept_by_who_keeps_nothing() -> None:
    assert same(made(range(2), lambda: numbers(range(2))), numbers(range(2)))


@pytest.mark.parametrize("changed", [{"seed": 1}, {"trace": "Exact()"}, {"flow": "b" * 64}, {"more": True}])
def test_chunks_of_other_settings_are_refused_by_name_and_left_alone(output: Path, changed: dict) -> None:
    before = {p.name: p.read_bytes() for p in (output.parent / ".x.npz.parts").iterdir()}
    with pytest.raises(FileExistsError, match="8 finished samples of other settings") as error:
        with Parts.of(output, SETTINGS | changed):
            pass
    ((name, now),) = changed.items()
    old = {"seed": "0", "trace": "none", "flow": "a" * 12, "more": "none"}[name]
    new = {"flow": "b" * 12}.get(name, str(now))
    assert f": {name} {old} (now {new}). Give those" in str(error.value) and "--overwrite" in str(error.value)
    assert {p.name: p.read_bytes() for p in (output.parent / ".x.npz.parts").iterdir()} == before


def test_overwrite_starts_anew_with_other_settings_and_goes_on_with_the_same(output: Path) -> None:
    with Parts.of(output, SETTINGS, overwrite=True) as parts:
        assert parts.done == 8 and same(parts(range(4), never), numbers(range(4)))
    with Parts.of(output, SETTINGS | {"seed": 1}, overwrite=True) as parts:
        assert parts.done == 0
        assert same(parts(range(4), lambda: numbers(range(4), 0.5)), numbers(range(4), 0.5))
    with Parts.of(output, SETTINGS | {"seed": 1}) as parts:
        assert parts.done == 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rename(path: Path) -> None:
    """A name in the header changed, the numbers not."""
    path.write_bytes(path.read_bytes().replace(b'"nfe"', b'"nfo"'))


@pytest.mark.parametrize("harm", [cut, flip, empty, rename])
def test_a_damaged_chunk_is_made_again_with_a_warning(output: Path, capsys, harm) -> None:
    harm(chunk(output, 4))
    with Parts.of(output, SETTINGS) as parts:
        assert same(parts(range(4), never), numbers(range(4))) and capsys.readouterr().err == ""
        assert same(parts(range(4, 8), lambda: numbers(range(4, 8))), numbers(range(4, 8)))
        said = capsys.readouterr().err
        assert said.startswith("warning: ") and str(chunk(output, 4)) in said and "made again" in said
    with Parts.of(output, SETTINGS) as parts:
        assert same(parts(range(4, 8), never), numbers(range(4, 8)))


def test_a_chunk_that_got_in_from_another_job_is_never_mixed_in(output: Path, tmp_path: Path, capsys) -> None:
    with Parts.of(tmp_path / "other.npz", SETTINGS | {"seed": 1}) as parts:
        parts(range(4), lambda: numbers(range(4), 0.5))
        os.replace(parts.folder / chunk(output, 0).name, chunk(output, 0))
    with Parts.of(output, SETTINGS) as parts:
        assert same(parts(range(4), lambda: numbers(range(4))), numbers(range(4)))
    assert "made again" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": 3}'])
def test_without_readable_settings_the_chunks_tell_whose_they_are(output: Path, capsys, content: str) -> None:
    (output.parent / ".x.npz.parts" / "settings.json").write_text(content)
    with Parts.of(output, SETTINGS | {"seed": 1}) as parts:
        assert same(parts(range(4), lambda: numbers(range(4), 0.5)), numbers(range(4), 0.5))
    assert "made again" in capsys.readouterr().err
    assert json.loads((parts.folder / "settings.json").read_text())["settings"]["seed"] == 1


def test_work_that_fails_before_its_first_chunk_leaves_nothing(tmp_path: Path) -> None:
    for failing in (never, lambda: numbers(range(2)) | {"x": "no tensor"}):
        with pytest.raises((AssertionError, AttributeError)):
            with Parts.of(tmp_path / "new" / "folder" / "x.npz", SETTINGS) as parts:
                parts(range(2), failing)  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(output: Path) -> None:
    pytest.importorskip("fcntl")
    with Parts.of(output, SETTINGS) as parts:
        with pytest.raises(RuntimeError, match=r"x\.npz is being made by another process"):
            with Parts.of(output, SETTINGS):
                pass
        assert parts.done == 8
    with Parts.of(output, SETTINGS):
        pass


def test_litter_of_a_killed_process_goes_and_a_full_disk_keeps_what_is_there(output: Path, monkeypatch) -> None:
    litter = output.parent / ".x.npz.parts" / ".half.safetensors"
    litter.write_bytes(b"half")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Parts.of(output, SETTINGS) as parts:
        assert not litter.exists()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="disk full. The 8 samples before it are kept"):
                parts(range(8, 12), lambda: numbers(range(8, 12)))
        assert parts.done == 8 and not list(parts.folder.glob(".*.safetensors"))


def test_the_checksum_sees_names_types_shapes_and_values_and_nothing_else() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    same_numbers = [
        {"x": x}, {"x": x.T.contiguous().T}, {"x": x.clone().requires_grad_()}, {"x": torch.cat([x, x])[:2]},
    ]  # fmt: skip
    assert len({checksum(t) for t in same_numbers}) == 1
    others = [
        {"x": x}, {"y": x}, {"x": x.double()}, {"x": x.reshape(3, 2)}, {"x": x + 1e-6}, {"x": x, "y": x[:0]},
        {"x": x[:0]}, {"x": x.bfloat16()}, {"x": torch.tensor(1)}, {"x": torch.tensor(True)}, {},
    ]  # fmt: skip
    assert len({checksum(t) for t in others}) == len(others)
    assert checksum({"a": x, "b": -x}) == checksum({"b": -x, "a": x})
