"""Gradients through an integration: those of what was computed, where gradients are enabled, and only there."""

import pytest
import torch

from scifm.batch import Batch
from scifm.solve import Solver, Warp, integrate
from scifm.trace import Hutchinson

SOLVERS = [
    Solver(rtol=1e-7, atol=1e-7),
    Solver("dopri5", 1e-7, 1e-7),
    Solver("heun", 1e-2, 1e-2),
    Solver("rk4", steps=5, spacing=Warp(1.5)),
    Solver("bosh5", steps=3),
    Solver("ab3", steps=6),
]
RATES = torch.tensor([0.1, 4.0, 1.0], dtype=torch.float64)


def field_of(weight):
    """Each sample at its own rate, so that some leave before others; divergence of −r tanh(x W) by hand."""

    def field(t, x, batch, probes):
        rate = batch.spread(batch.context["rate"] * (1 + t))
        y = torch.tanh(x @ weight)
        return -rate * y, -((1 - y**2) * weight.diagonal() * rate).sum(1, keepdim=True)

    return field


def batch_of(x):
    return Batch(x, context={"rate": RATES})


WEIGHT = torch.tensor([[1.0, 0.2], [-0.3, 0.8]], dtype=torch.float64)
X = torch.tensor([[0.3, -0.5], [0.8, 0.1], [-0.2, 0.6]], dtype=torch.float64)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_gradients_of_state_log_determinant_and_path_agree_with_differences(solver):
    def run(x, weight):
        solution = integrate(field_of(weight), x, 0, 1, batch_of(x), solver, times=[0.0, 0.37, 1.0])
        return [(part * torch.linspace(1, 2, part.numel()).reshape(part.shape)).sum() for part in
                (solution.x, solution.logdet, solution.path, solution.path_logdet)]  # fmt: skip

    inputs = X.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    # the differences see the steps change, which is an error of the order of the tolerance
    loose, eps = (0.1, 1e-3) if solver.method == "heun" else (1e-3, 1e-4)
    assert torch.autograd.gradcheck(lambda x, weight: tuple(run(x, weight)), inputs, atol=loose, rtol=loose, eps=eps)


@pytest.mark.parametrize(
    "solver", [Solver(), Solver("dopri5"), Solver("rk4", steps=4), Solver("ab2", steps=4)], ids=str
)
def test_the_answer_is_the_same_with_and_without_a_graph(solver):
    with torch.no_grad():
        plain = integrate(field_of(WEIGHT), X, 0, 1, batch_of(X), solver, times=[0.5])
    weight = WEIGHT.clone().requires_grad_()
    graph = integrate(field_of(weight), X, 0, 1, batch_of(X), solver, times=[0.5])
    assert graph.x.requires_grad and graph.logdet.requires_grad and graph.path.requires_grad
    assert not (plain.x.requires_grad or plain.logdet.requires_grad)
    for a, b in ((plain.x, graph.x), (plain.logdet, graph.logdet), (plain.path, graph.path)):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)
    assert torch.equal(plain.nfe, graph.nfe) and not graph.nfe.is_floating_point()


def test_no_graph_is_kept_where_gradients_are_disabled_even_if_all_ask_for_them():
    x, weight = X.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    with torch.no_grad():
        solution = integrate(field_of(weight), x, 0, 1, batch_of(x), Solver())
    assert not solution.x.requires_grad and solution.x.grad_fn is None


def test_gradients_of_a_network_with_probes():
    """d/dθ of log-determinant and state, samples leaving one by one, with a trace that is part of the graph."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    probes = Hutchinson(2).draw(batch_of(X), torch.Generator().manual_seed(0))
    solver = Solver(rtol=1e-8, atol=1e-8)

    def field(t, x, batch, probes):
        with torch.enable_grad():
            y = x if x.requires_grad else x.requires_grad_()
            v = -batch.spread(batch.context["rate"]) * net(y)
            pulls = [torch.autograd.grad(v, y, p, create_graph=True)[0] for p in probes]
        return v, torch.stack([batch.total(g * p) for g, p in zip(pulls, probes, strict=True)], 1)

    def value():
        solution = integrate(field, X.clone(), 0, 1, batch_of(X), solver, probes)
        return solution.logdet.mean(1).sum() + (solution.x**2).sum()

    value().backward()
    for p in net.parameters():
        with torch.no_grad():
            flat, k = p.view(-1), 1 % p.numel()
            kept = float(flat[k])
            ends = []
            for h in (1e-5, -1e-5):
                flat[k] = kept + h
                with torch.enable_grad():
                    ends.append(float(value().detach()))
            flat[k] = kept
        assert abs((ends[0] - ends[1]) / 2e-5 - float(p.grad.view(-1)[k])) < 1e-5


def test_second_derivatives_exist():
    x = X.clone().requires_grad_()
    solution = integrate(field_of(WEIGHT), x, 0, 1, batch_of(x), Solver("rk4", steps=3))
    (first,) = torch.autograd.grad(solution.logdet.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.abs().max() > 0 and second.isfinite().all() and second.abs().max() > 0
