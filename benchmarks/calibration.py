"""Whether reported errors mean what they say: 40 scores of known laws, for every trace.

The flow of a Gaussian mixture is known in closed form (`scifm.testing.known`), and so is its density.  Counted are
the runs in which

    the expected bits/dim of the law lies within two standard errors of the reported value, and
    the exact value of the same samples lies within two standard errors of the probes, and 2e-4 for the solver.

Two standard errors cover 95 % where all is right; of 40 runs, 36 or more are then expected with a probability of 0.95.
Fewer samples or probes would be covered less often: the spread of a few numbers is itself uncertain (Student), and the
values of the plane are skewed, so there are more of them there.  The row "closed form" scores the law's own density on
the same samples: what it misses is the luck of the samples, and no fault of a trace.
"""

from __future__ import annotations

import math

import torch
from harness import table

from scifm import Batch, Flow, Objective
from scifm.likelihood import bits_per_dim
from scifm.testing.known import KnownMixture
from scifm.trace import Colours, Exact, Hutchinson, HutchPlusPlus, Trace


def traces(event: tuple[int, ...]) -> dict[str, Trace]:
    found: dict[str, Trace] = {
        "Exact, reverse": Exact(),
        "Hutchinson(4)": Hutchinson(4),
        "Hutchinson(4, gaussian)": Hutchinson(4, "gaussian"),
        "HutchPlusPlus(8)": HutchPlusPlus(8),
    }
    if len(event) == 1:
        return {**found, "Exact, forward": Exact(mode="forward")}
    return {**found, "Colours(1, signs=3)": Colours(1, signs=3)}  # a mixture sees the whole field: signs


def runs(law: KnownMixture, trace: Trace, number: int, samples: int, truth: float) -> tuple[int, int, float]:
    """Of `number` scores, those that cover the law's value, those that cover their samples', and the mean error."""
    flow, d = Flow(law, law.prior, objective=Objective(metric="plain")), law.means.shape[1]
    covered = own = 0
    errors = []
    for seed in range(number):
        batch = Batch(law.sample(samples, torch.Generator().manual_seed(seed)))
        result = bits_per_dim(flow, batch, trace=trace, check=0, generator=torch.Generator().manual_seed(seed))
        exact = -float(law.log_prob(batch.x).mean()) / (d * math.log(2))
        covered += abs(result.value - truth) < 2 * result.stderr
        own += abs(result.value - exact) < 2 * (result.probe_stderr or 0.0) + 2e-4
        errors.append(abs(result.value - exact))
    return covered, own, sum(errors) / number


def closed_form(law: KnownMixture, number: int, samples: int, truth: float) -> int:
    """The same count for the exact density itself."""
    covered, d = 0, law.means.shape[1]
    for seed in range(number):
        bits = -law.log_prob(law.sample(samples, torch.Generator().manual_seed(seed))) / (d * math.log(2))
        covered += abs(float(bits.mean()) - truth) < 2 * float(bits.std()) / math.sqrt(samples)
    return covered


def measure(quick: bool) -> str:
    """The counts as a Markdown table."""
    number, few, many = (5, 8, 8) if quick else (40, 64, 256)
    rows: list[list[str]] = []
    laws = (("2-D mixture", KnownMixture.plane(), many), ("64-D coloured mixture", KnownMixture.coloured(), few))
    for name, law, samples in laws:
        truth = law.bits(100_000 if quick else 2_000_000, torch.Generator().manual_seed(1))
        rows.append([f"{name}, closed form", f"{closed_form(law, number, samples, truth)}/{number}", "–", "–"])
        for label, trace in traces(law.event).items():
            covered, own, error = runs(law, trace, number, samples, truth)
            rows.append([f"{name}, {label}", f"{covered}/{number}", f"{own}/{number}", f"{error:.1e}"])
    head = [
        "law and trace",
        "law's value within 2 stderr",
        "samples' value within 2 probe_stderr",
        "mean error, bits/dim",
    ]
    about = f"{many} samples in each run of the plane, {few} in 64 dimensions; errors in bits/dim."
    return f"## Calibration\n\n{about}\n\n" + table(head, rows)
