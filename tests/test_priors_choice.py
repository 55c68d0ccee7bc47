"""What suits the data is found where the answer is known, and what was taken is taken again."""

import math

import pytest
import torch

from scifm.batch import Batch
from scifm.priors import Gaussian, Masked, Prior, SpectralGaussian, ZonalGaussian, best, spectra
from scifm.priors.choice import choices, halves

DOUBLE = torch.float64


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def like(n, *event, **context):
    return Batch(torch.zeros(n, *event, dtype=DOUBLE), context=context)


def drawn(prior, n, *event, seed=0):
    batch = like(n, *event)
    return batch.replace(prior.sample(batch, torch.Generator().manual_seed(seed)))


class Stub(Prior):
    """A log-density per sample as it is told, and a note of what was fitted."""

    def __init__(self, value=0.0, fails=None):
        super().__init__()
        self.value, self.fails, self.seen = value, fails, []

    def fit(self, batch):
        self.seen.append(batch)
        if self.fails is not None:
            raise self.fails
        return self

    def sample(self, like, generator=None):
        return like.randn(generator)

    def log_prob(self, x, like):
        self.scored = x
        return torch.full((len(like),), self.value, dtype=DOUBLE)


# -- which -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [0, 1, 2])
def test_the_law_that_made_the_data_wins(truth):
    """White noise, a smooth stationary field, and one whose rows are not alike."""
    shape = (1, 4, 8)

    def kinds():
        return [Gaussian(), SpectralGaussian(shape, (False, True)), ZonalGaussian(shape, 0.02)]

    scale = torch.tensor([0.1, 1, 3, 0.3], dtype=DOUBLE)[:, None]
    smooth = SpectralGaussian(shape, (False, True), spectra.Matern(3.0))
    x = [drawn(Gaussian(), 600, *shape).x, drawn(smooth, 600, *shape).x, scale * drawn(smooth, 600, *shape).x][truth]
    assert type(best(kinds(), Batch(x))) is type(kinds()[truth])


def test_the_winner_is_fitted_to_all_of_the_data():
    data = Batch(3 + 2 * noise(50, 4))
    found = best([Gaussian(), Gaussian(per="value")], data)
    again = (Gaussian() if found.per == "all" else Gaussian(per="value")).fit(data)
    assert torch.equal(found.log_prob(data.x, data), again.log_prob(data.x, data))


def test_what_decides_was_not_fitted_to():
    one, two = Stub(1.0), Stub(2.0)
    data = Batch(torch.arange(40.0)[:, None])
    assert best([one, two], data) is two
    head, whole = two.seen
    assert head.x[:, 0].tolist() == list(range(28)) and two.scored[:, 0].tolist() == list(range(32, 40))
    assert len(whole) == 40 and len(one.seen) == 1 and two.scored.dtype == DOUBLE


def test_the_last_is_the_latest_and_no_time_is_on_both_sides():
    """Members of an ensemble, one after the other, of ten times that are not in order."""
    time = torch.tensor([9.0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).repeat(4)
    first, last = halves(like(40, 1, time=time))
    assert sorted(time[last].tolist()) == [8.0] * 4 + [9.0] * 4
    assert sorted(time[first].tolist()) == [float(t) for t in range(7) for _ in range(4)]
    three = torch.arange(3.0).repeat(10)  # the gap is inside of one time
    first, last = halves(like(30, 1, time=three))
    assert set(time_of(three, last)) == {2.0} and set(time_of(three, first)) == {0.0, 1.0} and len(first) == 20
    same = torch.zeros(30)  # of one time alone, nothing else can be done
    first, last = halves(like(30, 1, time=same))
    assert first.tolist() == list(range(21)) and last.tolist() == list(range(24, 30))
    first, last = halves(like(30, 1, time=torch.zeros(30, 2)))  # a condition of the same name that is no time
    assert first.tolist() == list(range(21))


def time_of(time, rows):
    return time[rows].tolist()


@pytest.mark.parametrize("n", range(1, 40))
def test_nothing_is_on_both_sides_whatever_the_number(n):
    first, last = halves(like(n, 1))
    assert len(last) == n // 5 and len(first) == n - n // 5 - n // 10 >= 1
    assert not set(first.tolist()) & set(last.tolist())


def test_ties_and_too_few_samples_go_to_the_first():
    assert best([one := Stub(1.0), Stub(1.0)], like(40, 1)) is one
    for data in (like(4, 1), like(1, 1), like(40, 1, time=torch.arange(4.0).repeat(10))):
        assert best([one := Stub(1.0), Stub(2.0)], data) is one and one.seen == [data]
    assert best([Stub(1.0), two := Stub(2.0)], like(5, 1)) is two
    assert best([alone := Stub(-math.inf)], like(40, 1)) is alone and len(alone.seen) == 1


@pytest.mark.parametrize(
    "fails", [ValueError("few"), NotImplementedError("fixed"), torch.linalg.LinAlgError("singular")]
)
def test_what_cannot_be_fitted_is_passed_over(fails):
    assert best([Stub(9.0, fails), two := Stub(2.0)], like(40, 1)) is two
    with pytest.raises(ValueError, match=f"none of 2 candidates could be fitted .{fails}"):
        best([Stub(fails=fails), Stub(fails=fails)], like(40, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_wins_nothing(value):
    for order in (1, -1):
        kinds = [Stub(value), Stub(-3.0), Stub(-5.0)][::order]
        assert best(kinds, like(40, 1)).value == -3.0
    with pytest.raises(ValueError, match="what was held out is"):
        best([Stub(value), Stub(value)], like(40, 1))


def test_other_errors_are_not_hidden_and_none_to_choose_from_is_one():
    with pytest.raises(TypeError, match="a mistake"):
        best([Stub(fails=TypeError("a mistake")), Stub()], like(40, 1))
    with pytest.raises(ValueError, match="expected candidates"):
        best([], like(40, 1))


def test_values_outside_of_a_mask_may_be_anything():
    mask = torch.tensor([[True, False, True]])
    data = Batch(torch.where(mask, noise(40, 1, 3), math.nan))
    assert best([Masked(mask), Masked(mask, per="value")], data).std[0, 0] > 0


# -- again -----------------------------------------------------------------------------------------------------


def test_what_was_taken_is_taken_again_whatever_the_data():
    rough, smooth = Batch(noise(50, 6)), Batch(noise(50, 6) * torch.linspace(0.1, 5, 6, dtype=DOUBLE))

    def both(one, two):
        return [best([Gaussian(), Gaussian(per="value")], data).per for data in (one, two)]

    with choices() as made:
        taken = both(smooth, rough)
    assert made == [(1, "Gaussian"), (0, "Gaussian")] and taken == ["value", "all"]
    with choices(made) as again:
        assert both(rough, smooth) == taken
    assert again == made
    assert both(rough, smooth) == ["all", "value"]  # outside all is as ever


def test_what_is_kept_is_plain_and_only_one_is_fitted_then():
    one, two = Stub(2.0), Stub(1.0)
    with choices([[1, "Stub"]]):  # as JSON gives it
        assert best([one, two], like(40, 1)) is two
    assert not one.seen and len(two.seen) == 1


@pytest.mark.parametrize("kept", [[(1, "Gaussian")], [(7, "Stub")], []])
def test_other_candidates_than_before_are_refused(kept):
    with choices(kept), pytest.raises(ValueError, match="now offers Stub, Stub.*another version"):
        best([Stub(), Stub()], like(40, 1))
