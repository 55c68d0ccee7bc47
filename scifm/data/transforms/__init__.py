"""Invertible maps between the user's units and model units, each with its Jacobian.

    y = T(x),     log p_X(x) = log p_Y(T(x)) + log |det ∂T/∂x|

A likelihood in the user's units needs the second term of every transform: standardising by s adds −log s per value.
Parameters are fitted on the training split only, kept as float64 buffers and saved with the flow.  `Batch` in, `Batch`
out: what does not flow (calendar, labels) is there for transforms that need it, and passes through.

    Affine, convert_units   given numbers; from one unit to another
    Standardise             mean and standard deviation of the training data
    Climatology, Detrend    anomalies from the cycles of year and day, or from a trend
    Log, Logit, BoxCox      data that are positive, or lie between bounds
    Chain                   one after the other

A transform of your own derives from `Transform`.
"""

from __future__ import annotations

from scifm.data.transforms.affine import Affine
from scifm.data.transforms.base import Identity, Transform
from scifm.data.transforms.box_cox import BoxCox
from scifm.data.transforms.chain import Chain
from scifm.data.transforms.climatology import Climatology
from scifm.data.transforms.detrend import Detrend
from scifm.data.transforms.logarithms import Log, Logit
from scifm.data.transforms.standardise import Standardise
from scifm.data.transforms.units import convert_units

__all__ = [
    "Affine",
    "BoxCox",
    "Chain",
    "Climatology",
    "Detrend",
    "Identity",
    "Log",
    "Logit",
    "Standardise",
    "Transform",
    "convert_units",
]
