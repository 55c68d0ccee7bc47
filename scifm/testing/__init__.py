"""Checks that a part keeps its contract: run on the project's own parts and on yours.

    from scifm.testing import check_prior
    check_prior(MyPrior(), Batch(torch.zeros(2, 3)))

Each check raises an AssertionError that says which law is broken, by how much, and where to look.  They are laws, not
snapshots: a density integrates to one, its score is its gradient, the same generator gives the same draw.
"""

from scifm.testing.coupling import check_coupling
from scifm.testing.equivariant import check_equivariant
from scifm.testing.path import check_path
from scifm.testing.prior import check_prior
from scifm.testing.shifts import check_shift_equivariant
from scifm.testing.solver import check_solver
from scifm.testing.trace import check_trace
from scifm.testing.velocity import check_velocity
from scifm.testing.virial import check_virial

__all__ = [
    "check_coupling",
    "check_equivariant",
    "check_path",
    "check_prior",
    "check_shift_equivariant",
    "check_solver",
    "check_trace",
    "check_velocity",
    "check_virial",
]
