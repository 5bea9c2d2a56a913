"""Compares a kernel with plain torch; shared by the tests of the kernels."""

import torch

from ncp_agents.torch import kernels
from ncp_agents.torch.sequence_layer import SequenceLayer


def results(circuit: SequenceLayer, x, h, timespans, resets) -> dict[str, torch.Tensor]:
    """Output, state and every gradient."""
    named = {name: p for name, p in circuit.named_parameters() if p.requires_grad}
    named |= {"x": x, "h": h} | ({} if timespans is None else {"timespans": timespans})
    states, last = circuit.states(x, h, timespans, resets)
    loss = states.sin().sum() + last.cos().sum()
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return {"states": states, "last": last, **dict(zip(named, gradients, strict=True))}


def assert_equals_plain(
    circuit: SequenceLayer,
    rows: int,
    with_timespans: bool,
    with_resets: bool,
    device: str = "cpu",
    tolerance: float = 1e-5,
) -> None:
    """Everything within the tolerance of its largest value, for random sequences of a few steps."""
    steps = 6
    circuit = circuit.to(device)
    x = torch.randn(rows, steps, circuit.input_size, device=device, requires_grad=True)
    h = torch.rand(rows, circuit.state_size, device=device, requires_grad=True)
    timespans = None
    if with_timespans:
        timespans = (3 * torch.rand(rows, steps, device=device)).requires_grad_()
    resets = torch.rand(rows, steps, device=device) < 0.3 if with_resets else None
    with kernels.off():
        expected = results(circuit, x, h, timespans, resets)
    for key, value in results(circuit, x, h, timespans, resets).items():
        error = (value - expected[key]).abs().max() / expected[key].abs().max().clamp(min=1e-3)
        assert error < tolerance, f"{key}: {error:.1e}"
