"""Integration of dx/dt = v(t, x), every sample with its own clock, and of its log-determinant along the way.

Step size, error control and step counts are per sample, so that a sample's answer never depends on its batch mates (a
shared step moves log-likelihoods by the solver's tolerance, depending on who else is in the batch).  Samples that have
arrived leave the batch: those that are still on their way are evaluated without them.

    adaptive    embedded Runge–Kutta pairs, PI control of the step per sample, landing exactly on the end
    along       what an adaptive step adds to the log-determinant, by divergences along the curve inside it
    fixed       a grid of times for all, equal or spaced: Runge–Kutta, or Adams–Bashforth with one evaluation per step

The change of the log-density is under the same error control as x.  Where gradients are enabled the steps are a graph
and the answer can be differentiated: discretise, then optimise; the choice of steps is not differentiated.

References: Hairer, Nørsett and Wanner 1993 (II.4 step control, II.6 dense output, III.5 variable-step Adams);
Söderlind 2003 (digital filters in step control); Chen et al. 2018.
"""

from scifm.solve.entry import integrate
from scifm.solve.solver import Field, Solution, Solver, SolverError
from scifm.solve.spacing import Warp, cosine
from scifm.tableaus import METHODS

__all__ = ["METHODS", "Field", "Solution", "Solver", "SolverError", "Warp", "cosine", "integrate"]
