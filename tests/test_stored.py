"""Samples in a file: the same training as in memory, whatever the chunks, and only a few chunks at hand."""

import _thread

import pytest
import torch

from scifm import Batch, Flow, Recipe, checkpoint, networks, priors
from scifm.data import Data
from scifm.data.stored import Stored, some
from scifm.pairs import Pairs
from scifm.schedule import Stretches, draw
from scifm.train import train
from scifm.verbs import score


class File:
    """A file in memory that counts how often each stretch is read."""

    def __init__(self, batch):
        self.batch, self.reads = batch, []

    def __call__(self, first, last):
        self.reads.append((first, last))
        return self.batch.select(range(first, last))


def numbers(n=23):
    return Batch(torch.arange(float(n))[:, None], context={"time": torch.arange(n, dtype=torch.float64)})


def ragged():
    counts = torch.tensor([1, 3, 2, 4, 2, 1, 5])
    index = torch.repeat_interleave(torch.arange(7), counts)
    return Batch(torch.randn(18, 3, generator=torch.Generator().manual_seed(0)), index, 7)


def equal(a, b):
    assert torch.equal(a.x, b.x) and torch.equal(a.counts, b.counts)
    assert set(a.context) == set(b.context) and all(torch.equal(a.context[k], b.context[k]) for k in a.context)


@pytest.mark.parametrize("batch", [numbers(), ragged()], ids=["dense", "ragged"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_select_is_that_of_a_batch(batch, chunk):
    stored = Stored(File(batch), len(batch), chunk)
    for chosen in ([0], [5, 0, 5, 3], range(len(batch)), [], torch.arange(len(batch)) % 2 == 0):
        equal(stored.select(chosen), batch.select(chosen))
    assert len(stored) == len(batch)
    equal(stored.head, batch.select([0]))


def test_split_sees_its_samples_only():
    held = torch.tensor([1, 2, 7, 8, 20])
    stored = Stored(File(numbers()), 23, 4, held)
    assert stored.select(range(5)).x[:, 0].tolist() == held.tolist()
    assert stored.stretches.sizes == (2, 1, 1, 1)
    assert stored.some(3).x[:, 0].tolist() == [1, 7, 20]
    assert stored.some(99).x[:, 0].tolist() == held.tolist()
    equal(some(stored, 2), stored.select([0, 4]))
    assert some(numbers(), 2).x.shape == (23, 1)  # a batch is as it is


def test_few_chunks_are_kept_and_each_is_read_once_per_epoch():
    file = File(numbers(40))
    stored = Stored(file, 40, 5, memory=6 * 5 * 12)  # 6 chunks of 5 samples of 4 + 8 bytes
    assert stored.keep == 6 and stored.stretches == Stretches((5,) * 8, 2)
    file.reads.clear()
    for step in range(5):
        stored.select(draw(40, 8, step, 0, stored.stretches))
        assert len(stored._chunks) <= 6
    assert sorted(file.reads) == [(k, k + 5) for k in range(0, 40, 5)]


def test_memory_of_less_than_three_chunks_is_three_chunks():
    assert Stored(File(numbers()), 23, 10, memory=1).keep == 3


def test_last_chunk_is_shorter():
    file = File(numbers())
    Stored(file, 23, 10).select([22])
    assert file.reads[-1] == (20, 23)


@pytest.mark.parametrize("sizes, together", [((5, 5, 5), 1), ((3, 7, 1, 4), 2), ((15,), 1), ((1,) * 15, 30)])
def test_shuffle_in_stretches(sizes, together):
    """Every sample once per epoch, in windows of whole chunks, another order in each epoch, of all seeds alike."""
    n, stretches = sum(sizes), Stretches(sizes, together)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    epochs = [draw(n, n, epoch, 7, stretches) for epoch in range(3)]
    for drawn in epochs:
        assert sorted(drawn.tolist()) == list(range(n))
        first, seen = 0, set()
        while first < n:  # windows: each takes up whole chunks that no other window has
            chunks = list(dict.fromkeys(owner[drawn[first:]].tolist()))[:together]
            length = sum(sizes[k] for k in chunks)
            window = set(owner[drawn[first : first + length]].tolist())
            assert not window & seen
            assert sum(sizes[k] for k in window) == length or together == 1
            seen |= window
            first += length
    assert torch.equal(epochs[0], draw(n, n, 0, 7, stretches))
    assert not torch.equal(epochs[0], epochs[1])
    pieces = torch.cat([draw(n, 2, step, 7, stretches) for step in range(n)])
    assert torch.equal(pieces, torch.cat(epochs[:2]))  # batches are pieces of the epochs


def test_all_chunks_together_is_a_shuffle_of_all():
    """Where each sample may be first, and as often as the others."""
    firsts = torch.stack([draw(6, 6, epoch, 0, Stretches((2, 2, 2), 3))[0] for epoch in range(1200)])
    assert (torch.bincount(firsts, minlength=6) - 200).abs().max() < 5 * 200**0.5


def fields(n=32):
    x = torch.randn(n, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    return Batch(x, context={"time": torch.arange(n, dtype=torch.float64)})


def recipe(stored):
    whole = fields(48)
    held = whole.select(range(32, 40)), whole.select(range(40, 48))
    train = Stored(File(whole), 48, 4, torch.arange(32), memory=3000) if stored else whole.select(range(32))
    flow = Flow(networks.UNet(1, widths=(4,)), priors.Gaussian())
    return Recipe(flow, Data("fields", train, *held), steps=6, batch_size=8, warmup=1, test_samples=4)


def test_pairs_are_those_of_the_same_samples_in_memory():
    made, stretches = recipe(True), recipe(True).data.stretches
    assert stretches is not None and stretches.sizes == (4,) * 8
    with Pairs(made, 3) as pairs:
        for step in (0, 5, 1):
            batch, x0 = pairs.at(step)
            wanted = fields(48).select(draw(32, 8, step, 3, stretches))
            equal(batch, wanted)
            assert x0.shape == batch.x.shape


def test_resumed_training_ends_in_the_same_weights(tmp_path):
    start = recipe(True).flow.state_dict()
    start = {k: v.clone() for k, v in start.items()}

    def fresh():
        made = recipe(True)
        made.flow.load_state_dict(start)
        return made

    straight = train(fresh(), tmp_path / "straight", seed=1, progress=False)
    stopped, calls = fresh(), []

    def third(module, inputs, output):
        calls.append(1)
        if len(calls) == 3:
            _thread.interrupt_main()

    stopped.flow.velocity.register_forward_hook(third)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path / "stopped", seed=1, progress=False)
    assert 3 <= checkpoint.load(tmp_path / "stopped" / "checkpoints")[2] < 6
    resumed = train(fresh(), tmp_path / "stopped", seed=1, resume=True, progress=False)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_score_and_baselines_of_stored_training_data():
    there, memory = (score(recipe(stored), samples=4) for stored in (True, False))
    assert there.value == pytest.approx(memory.value, abs=1e-9)
    assert {k: v.value for k, v in there.baselines.items()} == pytest.approx(
        {k: v.value for k, v in memory.baselines.items()}
    )
    assert score(recipe(True), split="train", samples=5).value == pytest.approx(
        score(recipe(False), split="train", samples=5).value, abs=1e-9
    )


@pytest.mark.parametrize(
    "change, says",
    [
        ({"samples": torch.tensor([], dtype=torch.long)}, "none of the 23 samples"),
        ({"samples": torch.tensor([3, 2])}, "rising order"),
        ({"samples": torch.tensor([2, 2])}, "different numbers"),
        ({"samples": torch.tensor([23])}, "0 … 22"),
        ({"samples": torch.tensor([-1])}, "0 … 22"),
        ({"chunk": 0}, "chunk and memory"),
        ({"memory": 0}, "chunk and memory"),
    ],
)
def test_refuses(change, says):
    with pytest.raises(ValueError, match=says):
        Stored(**{"read": File(numbers()), "count": 23, "chunk": 4} | change)


def test_what_is_wrong_with_a_chunk_is_said_by_check_before_training():
    whole = fields(12)
    whole.x[9] = torch.nan

    def read(first, last):
        batch = whole.select(range(first, last))
        if batch.x.isnan().any():
            raise ValueError(f"samples {first} to {last - 1}: missing values")
        return batch

    stored = Stored(read, 12, 4)
    with pytest.raises(ValueError, match="samples 8 to 11"):
        stored.check(progress=False)
    Stored(read, 12, 4, torch.arange(7)).check(progress=False)  # that chunk is not in the split


def test_chunks_that_change_their_shape_are_refused():
    def read(first, last):
        return Batch(torch.zeros(last - first, 2 if first < 4 else 3))

    with pytest.raises(ValueError, match=r"samples 4 to 7 are 4 of torch.float32 \(3,\)"):
        Stored(read, 8, 4).select([5])


def test_data_checks_the_layout_of_stored_samples():
    with pytest.raises(ValueError, match="differ in layout|per row"):
        Data("fields", Stored(File(fields()), 32, 4), numbers(), numbers())
    with pytest.raises(TypeError, match="valid must be a Batch"):
        Data("fields", fields(), Stored(File(fields()), 32, 4), fields())


def test_samples_to_fit_to_are_read_one_by_one_and_no_chunk_stays():
    file = File(fields(40))
    stored = Stored(file, 40, 5, torch.arange(3, 40))
    file.reads.clear()
    found = stored.some(4)
    assert file.reads == [(3, 4), (15, 16), (27, 28), (39, 40)] and not stored._chunks
    equal(found, stored.select([0, 12, 24, 36]))
    assert ragged().select([0, 3, 6]).x.equal(Stored(File(ragged()), 7, 2).some(3).x)
