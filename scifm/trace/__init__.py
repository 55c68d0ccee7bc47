"""Divergence of a velocity field, tr(∂v/∂x), sample by sample.

    Exact            Σ_j e_jᵀ (∂v/∂x) e_j          one product with the Jacobian per coordinate of the largest sample
    Colours          the same for local networks   one product per colour, however many points the grid has
    Hutchinson       (1/K) Σ_k ε_kᵀ (∂v/∂x) ε_k      K products, unbiased for E[ε εᵀ] = I
    HutchPlusPlus    exact on a sketch of the range, Hutchinson on the rest; K products

The probes ε are drawn once and then kept for a whole solve: fresh ones at every call would make the right-hand side
random, and an adaptive solver would chase the noise.  Each probe's divergence is returned by itself, so that their
spread along the path gives the standard error of the log-likelihood.

On a subspace with orthogonal projection P (mean-free positions, the ocean of a map) a flow sees v(x) = P w(P x), and
the trace of its Jacobian P J P in the ambient coordinates is the divergence on the subspace: nothing else is needed.

A trace has two verbs: `draw(like, generator)` the probes, and `(velocity, t, x, batch, probes) -> (v, divergence)`.
The result is attached to the graph if and only if gradients are enabled when it is called.
"""

from scifm.trace.base import Trace, Velocity
from scifm.trace.choice import default
from scifm.trace.colours import Colours
from scifm.trace.exact import Exact
from scifm.trace.hutchinson import Hutchinson
from scifm.trace.hutchpp import HutchPlusPlus

__all__ = ["Colours", "Exact", "HutchPlusPlus", "Hutchinson", "Trace", "Velocity", "default"]
