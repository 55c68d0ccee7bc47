"""How far beside its prior's subspace a sample may lie: single precision's rounding in every dtype, and no further."""

import pytest
import torch

from scifm.batch import Batch
from scifm.priors import Gaussian, Masked, MeanFreeGaussian
from scifm.support import on_subspace

COUNTS = [7, 1, 2, 13, 0, 3]
PRIOR = MeanFreeGaussian()


def sets(scale=1.0, offset=0.0, dtype=torch.float32):
    """Sets of several sizes, one of a single point and one of none, centred in float32 far from the origin."""
    index = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    x = scale * torch.randn(len(index), 3, generator=torch.Generator().manual_seed(0)) + offset
    like = Batch(x, index, len(COUNTS))
    return like.replace(PRIOR.project(x, like)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.0), (1e3, 0.0), (1.0, 10.0), (20.0, 300.0)])
def test_what_was_centred_in_single_precision_passes_in_both(scale, offset, dtype):
    like = sets(scale, offset, dtype)
    found = on_subspace(PRIOR, like.x, like)
    assert torch.equal(found, PRIOR.project(like.x, like))
    wide = like.to(torch.float64)
    assert float(PRIOR.project(wide.x, wide).sub(wide.x).abs().max()) > 0  # it was not centred to double precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e3])
@pytest.mark.parametrize("sample", [0, 2, 3, 5])
def test_a_thousandth_of_the_size_is_too_far(sample, scale, dtype):
    like = sets(scale, dtype=dtype)
    length = like.total(like.x.square()).sqrt() / like.counts.sqrt()
    there = (torch.arange(len(COUNTS)) == sample).to(dtype)
    for share, passes in ((1e-3, False), (3e-6, True)):
        moved = like.x + like.spread(share * length * there) * torch.tensor([1.0, 0, 0], dtype=dtype)
        if passes:
            on_subspace(PRIOR, moved, like)
        else:
            with pytest.raises(ValueError, match=f"MeanFreeGaussian lives on a subspace, and sample {sample} is"):
                on_subspace(PRIOR, moved, like)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [1.0, 1e6])
def test_an_offset_is_no_rounding_however_large_the_set_or_the_offset(offset, dtype):
    like = sets(dtype=dtype)
    with pytest.raises(ValueError, match="sample 0 is"):
        on_subspace(PRIOR, like.x + offset, like)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_single_point_stands_at_the_origin(dtype):
    like = Batch(torch.zeros(1, 3, dtype=dtype), torch.zeros(1, dtype=torch.long), 1)
    assert torch.equal(on_subspace(PRIOR, like.x, like), like.x)
    assert torch.equal(on_subspace(PRIOR, like.x + 3e-7, like), like.x)
    with pytest.raises(ValueError, match="sample 0 is 0.00"):
        on_subspace(PRIOR, like.x + 1e-3, like)


def test_points_in_one_place_centred_by_a_mean_that_rounds():
    """They have no length to compare with: what is left of them is the rounding of their place."""
    place = torch.full((7, 1), 9.1)
    like = Batch(place - place.sum() / 7, torch.zeros(7, dtype=torch.long), 1).to(torch.float64)
    assert float(on_subspace(PRIOR, like.x, like).abs().max()) < 1e-12


def test_masks_and_missing_numbers():
    prior = Masked(torch.tensor([True, False, True]))
    like = Batch(torch.tensor([[3.0, 1e-6, -4.0]], dtype=torch.float64))
    assert on_subspace(prior, like.x, like).tolist() == [[3.0, 0.0, -4.0]]
    for wrong in (5e-3, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Masked lives on a subspace"):
            on_subspace(prior, torch.tensor([[3.0, wrong, -4.0]], dtype=torch.float64), like)


def test_a_prior_on_all_of_space_returns_what_it_was_given():
    like = sets(offset=5.0)
    assert on_subspace(Gaussian(), like.x, like) is like.x
