"""Pairs in time: the right ones, in the right order, and none that do not exist."""

import pytest
import torch

from scifm import Batch
from scifm.data.lagged import lagged
from scifm.data.transforms import Affine


def series(times):
    t = torch.tensor(times, dtype=torch.float64)
    return Batch(10 * t[:, None, None].float(), context={"time": t})


@pytest.mark.parametrize("lead", [0.25, 1.0])
def test_each_sample_gets_the_one_before(lead):
    times = torch.randperm(40, generator=torch.Generator().manual_seed(0)).double() / 4
    batch = Batch(10 * times[:, None].float(), context={"time": times, "hour": times % 1})
    pairs = lagged(batch, lead)
    assert len(pairs) == 40 - 4 * lead
    torch.testing.assert_close(pairs.x - pairs.context["previous"], torch.full_like(pairs.x, 10 * lead))
    assert pairs.context["time"].tolist() == [t for t in times.tolist() if t >= lead]  # in the order of the batch
    assert torch.equal(pairs.context["hour"], pairs.context["time"] % 1)


def test_gaps_leave_samples_out_and_tolerance_bridges_rounding():
    pairs = lagged(series([0, 1, 2 + 2e-4, 5, 6 + 0.1]), 1.0)
    assert pairs.context["time"].tolist() == [1, 2 + 2e-4]
    assert lagged(series([0, 1.5]), 1.4, tolerance=0.2).context["previous"].flatten().tolist() == [0]


def test_source_units_and_name():
    late, early = series([3, 4]), series([2, 2, 3])
    pairs = lagged(late, 1.0, "coarse", source=early, units=Affine(shift=-5.0, scale=2.0))
    assert pairs.context["coarse"].flatten().tolist() == [30, 50]
    assert pairs.x.flatten().tolist() == [30, 40]


@pytest.mark.parametrize(
    "batch, lead, says",
    [
        (Batch(torch.zeros(3, 2)), 1.0, r'no context\["time"\]'),
        (series([0, 1]), 0.0, "more than 0 days"),
        (series([0, 1]), float("nan"), "more than 0 days"),
        (series([0, 1, 2]), 0.5, "the usual step is 1 days"),
        (series([1]), 1.0, "none of 1 samples"),
    ],
)
def test_refuses(batch, lead, says):
    with pytest.raises(ValueError, match=says):
        lagged(batch, lead)
