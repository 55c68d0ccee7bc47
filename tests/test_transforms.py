"""Transforms by law: back and forth loses nothing, and log_det is the log-determinant that autograd finds."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch
from scifm.data.transforms import (
    Affine,
    BoxCox,
    Chain,
    Climatology,
    Detrend,
    Identity,
    Log,
    Logit,
    Standardise,
    Transform,
    convert_units,
)

DTYPES = [torch.float32, torch.float64]
EPOCH_DAY = 15_706.0  # 2013-01-01
COAST = torch.tensor([[True, False], [True, True], [False, True]])


def dense(dtype=torch.float64, n=40, event=(2, 3, 2), hours=(0, 6, 12, 18)):
    """Positive values below 12, times every six hours over two years."""
    g = torch.Generator().manual_seed(1)
    x = 1 + 10 * torch.rand(n, *event, generator=g, dtype=torch.float64)
    day = torch.randint(0, 730, (n,), generator=g) + EPOCH_DAY
    hour = torch.tensor(hours, dtype=torch.float64)[torch.randint(len(hours), (n,), generator=g)]
    return Batch(x.to(dtype), context={"time": day + hour / 24})


def ragged(dtype=torch.float64):
    g = torch.Generator().manual_seed(2)
    index = torch.tensor([0, 0, 0, 2, 2, 3])  # sample 1 is empty
    return Batch(1 + 10 * torch.rand(6, 2, generator=g, dtype=torch.float64).to(dtype), index, 4)


def transforms(batch: Batch) -> dict[str, Transform]:
    both = {
        "identity": Identity(),
        "affine": Affine(shift=-3.0, scale=-0.25),
        "standardise global": Standardise("global").fit(batch),
        "standardise channel": Standardise("channel").fit(batch),
        "logit": Logit(0.0, 12.0),
        "log": Log(),
        "box-cox": BoxCox().fit(batch),
        "box-cox channel": BoxCox(shift=0.5, per="channel").fit(batch),
        "box-cox logarithm": BoxCox(power=0.0),
        "box-cox negative": BoxCox(power=-0.3),
        "units": convert_units("km h-1", "m s-1"),
        "chain": Chain(Affine(shift=0.5), Log(), Standardise("channel")).fit(batch),
        "empty chain": Chain(),
    }
    if not batch.dense:
        return both
    channel = torch.tensor([0.5, -2.0]).reshape(2, 1, 1)
    return both | {
        "affine per channel": Affine(shift=channel, scale=channel),
        "standardise point": Standardise("point").fit(batch),
        "climatology point": Climatology(harmonics=1).fit(batch),
        "climatology global": Climatology(harmonics=2, per="global").fit(batch),
        "climatology masked": Climatology(harmonics=1, daily=0, mask=COAST, year=360.0).fit(batch),
        "standardise masked": Standardise("global", COAST).fit(batch),
        "standardise masked channel": Standardise("channel", COAST).fit(batch),
        "standardise masked point": Standardise("point", COAST).fit(batch),
        "detrend point": Detrend().fit(batch),
        "detrend global": Detrend("global").fit(batch),
    }


CASES = [
    pytest.param(make, name, id=f"{make.__name__} {name}") for make in (dense, ragged) for name in transforms(make())
]


@pytest.mark.parametrize(("make", "name"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back_loses_nothing(make, name, dtype):
    batch = make(dtype)
    transform = transforms(batch)[name]
    model = transform(batch)
    assert model.x.dtype == dtype and model.x.shape == batch.x.shape
    assert model.context.keys() == batch.context.keys()
    back = transform.inverse(model)
    # the inverse of a logit or logarithm loses what its slope says: a few units in the last place of the largest value
    torch.testing.assert_close(back.x, batch.x, rtol=20 * torch.finfo(dtype).eps, atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("make", "name"), CASES)
def test_log_det_is_that_of_the_jacobian(make, name):
    batch = make()
    transform = transforms(batch)[name]
    found = transform.log_det(batch)
    assert found.shape == (len(batch),)
    whole = torch.autograd.functional.jacobian(lambda x: transform(batch.replace(x)).x, batch.x)
    size = batch.x.numel()
    whole = whole.reshape(size, size)
    # of which sample each number is; between samples there must be nothing
    ones = torch.ones_like(batch.x)
    owner = batch.spread(torch.arange(len(batch), dtype=torch.float64)).mul(ones).flatten()
    assert (whole[owner[:, None] != owner] == 0).all()
    for b in range(len(batch)):
        block = whole[owner == b][:, owner == b]
        expected = torch.linalg.slogdet(block).logabsdet if block.numel() else torch.tensor(0.0).double()
        torch.testing.assert_close(found[b], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("make", "name"), CASES)
def test_float32_agrees_with_float64(make, name):
    batch = make()
    transform = transforms(batch)[name]
    single = batch.replace(batch.x.float())
    torch.testing.assert_close(transform(single).x.double(), transform(batch).x, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(transform.log_det(single).double(), transform.log_det(batch), rtol=2e-5, atol=2e-5)


def fresh(name: str) -> Transform:
    return {
        "standardise channel": Standardise("channel"),
        "standardise point": Standardise("point"),
        "standardise global": Standardise("global"),
        "climatology point": Climatology(harmonics=1),
        "climatology global": Climatology(harmonics=2, per="global"),
        "climatology masked": Climatology(harmonics=1, daily=0, mask=COAST, year=360.0),
        "standardise masked": Standardise("global", COAST),
        "detrend point": Detrend(),
        "detrend global": Detrend("global"),
        "box-cox": BoxCox(),
        "box-cox channel": BoxCox(shift=0.5, per="channel"),
        "chain": Chain(Affine(shift=0.5), Log(), Standardise("channel")),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "standardise channel",
        "standardise point",
        "standardise global",
        "climatology point",
        "climatology global",
        "climatology masked",
        "standardise masked",
        "detrend point",
        "detrend global",
        "box-cox",
        "box-cox channel",
        "chain",
    ],
)
def test_state_dict_restores_what_was_fitted_without_data(name):
    batch = dense()
    fitted, new = transforms(batch)[name], fresh(name)
    new.load_state_dict(fitted.state_dict())
    assert torch.equal(new(batch).x, fitted(batch).x)
    assert torch.equal(new.log_det(batch), fitted.log_det(batch))
    with pytest.raises(ValueError, match="before fit"):
        fresh(name)(batch)


@pytest.mark.parametrize("per", ["global", "channel", "point"])
def test_standardised_data_have_mean_zero_and_variance_one(per):
    batch = dense()
    y = Standardise(per).fit(batch)(batch).x
    axes = {"global": (0, 1, 2, 3), "channel": (0, 2, 3), "point": (0,)}[per]
    torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.var(axes, correction=0), torch.ones_like(y.mean(axes)))


def seasons(n=1500, noise=0.1, dtype=torch.float64):
    """A field whose mean is known: an annual cycle with three harmonics and a daily cycle that follows the season."""
    g = torch.Generator().manual_seed(3)
    time = EPOCH_DAY + torch.arange(n, dtype=torch.float64) / 4 * 2
    year, hour = 2 * math.pi * time / 365.2425, (time % 1) * 24
    mean = 280 + 10 * torch.cos(year) + 2 * torch.sin(2 * year) + torch.cos(3 * year) + (hour == 12) * torch.sin(year)
    mean = mean[:, None, None] * torch.tensor([1.0, 0.5]).double()
    x = mean + noise * torch.randn(n, 1, 2, generator=g, dtype=torch.float64)
    return Batch(x.to(dtype), context={"time": time}), mean


@pytest.mark.parametrize("dtype", DTYPES)
def test_climatology_finds_the_cycles(dtype):
    batch, mean = seasons(dtype=dtype)
    found = Climatology().fit(batch)
    # 16 coefficients from 1500 samples: the mean is known to noise * sqrt(16 / 1500) = 0.01
    assert (found.mean(batch).double() - mean).square().mean().sqrt() < 0.02
    torch.testing.assert_close(found.std, torch.full((1, 2), 0.1).double(), rtol=0.1, atol=0)


def test_climatology_knows_times_that_went_through_float32():
    batch, _ = seasons()
    hourly = torch.arange(24 * 90, dtype=torch.float64) / 24 + EPOCH_DAY
    batch = Batch(batch.x[:1].expand(len(hourly), 1, 2), context={"time": hourly})
    climatology = Climatology(harmonics=1, hours=range(24))
    exact = climatology.features(batch)
    rough = climatology.features(batch.to(torch.float32))
    torch.testing.assert_close(rough, exact, atol=1e-4, rtol=0)


def bad(x, *, time=True):
    x = torch.as_tensor(x)
    return Batch(x, context={"time": EPOCH_DAY + torch.arange(len(x)).double()} if time else {})


def with_nan(shape=(60, 1, 2)):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[3, 0, 1] = torch.nan
    return x


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Standardise().fit(bad(with_nan())), "1 of 60 samples hold NaN or infinity, the first is 3"),
        (lambda: Climatology().fit(bad(with_nan())), "1 of 60 samples hold NaN or infinity, the first is 3"),
        (lambda: Affine()(bad(with_nan())), "NaN or infinity"),
        (lambda: Log()(bad(with_nan())), "NaN or infinity"),
        (lambda: Logit(0, 1)(bad(torch.full((2, 1), torch.inf))), "NaN or infinity"),
        (lambda: Standardise().fit(bad(torch.rand(5, 2)))(bad(with_nan((60, 2, 2))[:, 0])), "NaN or infinity"),
        (lambda: Standardise().fit(bad(torch.full((9, 2), 0.1))), "do not vary"),
        (lambda: Standardise("channel").fit(bad(torch.rand(9, 3, 2) * torch.eye(3)[:, :1])), r"first at \(1, 0\)"),
        (lambda: Standardise("point").fit(bad(torch.rand(9, 1, 2) * torch.tensor([1.0, 0]))), r"first at \(0, 1\)"),
        (lambda: Climatology().fit(bad(torch.full((60, 1, 2), 280.1))), "do not vary"),
        (lambda: Standardise().fit(bad(torch.rand(1, 2))), "at least 2 samples, got 1"),
        (lambda: Standardise().fit(bad(torch.zeros(0, 2))), "at least 2 samples, got 0"),
        (lambda: Standardise().fit(bad(torch.arange(6).reshape(3, 2))), "floating-point values, got torch.int64"),
        (lambda: Standardise("pixel"), '"global", "channel" or "point", got \'pixel\''),
        (lambda: Standardise("point").fit(ragged()), "ragged"),
        (lambda: Climatology().fit(ragged()), "ragged"),
        (lambda: Standardise("point").fit(dense())(dense(event=(2, 3, 3))), r"\(2, 3, 2\).*\(2, 3, 3\)"),
        (lambda: Standardise("channel").fit(dense())(dense(event=(1, 3, 2))), r"\(2, 1, 1\).*\(1, 3, 2\)"),
        (lambda: Climatology(harmonics=1).fit(dense())(dense(event=(2, 3, 3))), r"\(2, 3, 2\).*\(2, 3, 3\)"),
        (lambda: Climatology().fit(bad(torch.rand(60, 1, 2), time=False)), 'needs context."time".*no context'),
        (lambda: Climatology().fit(bad(torch.rand(20, 1, 2))), "20 samples cannot fix 16 coefficients"),
        (lambda: Climatology().fit(dense(n=60, hours=(0, 3))), r"hold \[3.0\]; name them in hours="),
        (lambda: Climatology(harmonics=0), "at least one harmonic"),
        (lambda: Climatology(per="channel"), '"point" or "global"'),
        (lambda: Climatology(daily=-1), "daily of 0 or more"),
        (lambda: Climatology(year=0.0), "365.2425 or 360"),
        (lambda: Climatology(harmonics=1, mask=torch.ones(4) > 0).fit(dense()), r"broadcast to samples of shape \(2"),
        (lambda: Climatology(per="point", hours=(0,)).fit(bad(torch.rand(60, 1, 2) * torch.eye(2)[:1])), "by mask="),
        (lambda: Standardise("point", COAST.double()).fit(dense()), "mask must be bool.*torch.float64"),
        (lambda: Standardise("point", COAST & False).fit(dense()), "False everywhere"),
        (lambda: Standardise("global", COAST).fit(ragged()), "ragged"),
        (lambda: Standardise("point").fit(bad(torch.rand(9, 1, 2) * torch.eye(2)[:1])), "land, say so by mask="),
        (lambda: Detrend("channel"), '"point" or "global", got \'channel\''),
        (lambda: Detrend()(dense()), "before fit"),
        (lambda: Detrend().fit(ragged()), "ragged"),
        (lambda: Detrend().fit(bad(with_nan())), "1 of 60 samples hold NaN"),
        (lambda: Detrend().fit(bad(torch.rand(60, 1, 2), time=False)), 'needs context."time".*no context'),
        (lambda: Detrend().fit(dense())(dense(event=(2, 3, 3))), r"\(2, 3, 2\).*\(2, 3, 3\)"),
        (lambda: Detrend().fit(Batch(torch.rand(3, 2), context={"time": torch.ones(3)})), "all 3 samples.*same time"),
        (lambda: BoxCox(per="point"), '"global" or "channel"'),
        (lambda: BoxCox(power=math.inf), "must be finite"),
        (lambda: BoxCox()(dense()), "before fit.*power="),
        (lambda: BoxCox().fit(bad(with_nan().abs())), "1 of 60 samples hold NaN"),
        (lambda: BoxCox().fit(bad(torch.tensor([[0.0], [1.0]]))), "above -?0, but 1 of 2 values are not.*larger shift"),
        (lambda: BoxCox(shift=0.5).fit(bad(torch.tensor([[-0.5], [1.0]]))), "above -0.5, .*smallest is -0.5"),
        (lambda: BoxCox(power=1.0)(bad(torch.tensor([[-2.0]]))), "smallest is -2"),
        (lambda: BoxCox().fit(bad(torch.ones(5, 2))), "do not vary"),
        (lambda: BoxCox(per="channel").fit(dense())(dense(event=(1, 3, 2))), r"2 channels, got rows of shape \(1, 3"),
        (lambda: convert_units("K", "hPa"), "'K' is a unit of temperature and 'hPa' one of pressure"),
        (lambda: convert_units("degX", "K"), "'degX' is not in the table; did you mean"),
        (lambda: convert_units("K", "furlong per fortnight"), "not in the table; give Affine"),
        (lambda: Affine(scale=0.0), "scale finite and not zero"),
        (lambda: Affine(shift=math.nan), "shift must be finite"),
        (lambda: Affine(scale=torch.ones(3))(dense()), r"scale of shape \(3,\) does not fit.*\(C, 1, 1\)"),
        (lambda: Affine(scale=torch.ones(5, 2))(Batch(torch.ones(5, 2))), r"does not fit rows of shape \(2,\)"),
        (lambda: Log()(Batch(torch.tensor([[1.0], [-2.0]]))), "positive, the smallest is -2"),
        (lambda: Logit(0, 1)(Batch(torch.tensor([[0.5], [1.0]]))), "strictly between 0 and 1.*run from 0.5 to 1"),
        (lambda: Logit(1, 1), "low < high"),
        (lambda: Standardise()(dense()), "before fit"),
        (lambda: Climatology().inverse(dense()), "before fit"),
        (lambda: Standardise().log_det(dense()), "before fit"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_chain_takes_transforms_only():
    with pytest.raises(TypeError, match="argument 2 must be a Transform, got int"):
        Chain(Log(), 3)


def test_a_failed_fit_leaves_nothing_behind():
    transform = Standardise()
    with pytest.raises(ValueError, match="do not vary"):
        transform.fit(bad(torch.ones(5, 2)))
    with pytest.raises(ValueError, match="before fit"):
        transform(bad(torch.rand(5, 2)))
