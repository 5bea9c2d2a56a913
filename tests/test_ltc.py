"""LTC in torch: the equation, parity with ncps, time, resets, memory, constraints."""

import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import torch

from ncp_agents.layers import reference
from ncp_agents.torch import LTC, LTCCell, kernels
from ncp_agents.wirings import AutoNCP, FullyConnected, Random, Wiring

I, N, B, T = 5, 12, 3, 6  # noqa: E741


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def layers(**kwargs):
    yield LTC(I, AutoNCP(N, 3), **kwargs)
    yield LTC(I, Random(N, 4, 0.6), **kwargs)
    yield LTC(I, N, **kwargs)


def data(dtype=torch.float64, b=B, t=T):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(b, t, I, generator=g, dtype=dtype)
    h = torch.randn(b, N, generator=g, dtype=dtype)
    timespans = 0.1 + 2 * torch.rand(b, t, generator=g, dtype=dtype)
    resets = torch.rand(b, t, generator=g) < 0.3
    return x, h, timespans, resets


def by_equation(ltc: LTC, x, h, timespans, resets) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (B, T, M) and states (B, T, N), step by step from `layers/reference.py`."""
    cell = ltc.rnn_cell
    params = {key: value.detach().numpy() for key, value in cell.state_dict().items()}
    if cell.implicit_param_constraints:
        for key in ("cm", "gleak", "w", "sensory_w"):
            params[key] = np.log1p(np.exp(params[key]))
    v, outputs, states = h.numpy(), [], []
    for t in range(x.shape[1]):
        v = np.where(resets[:, t : t + 1].numpy(), 0.0, v)
        v = reference.ltc_step(
            x[:, t].numpy(), v, params, cell.ode_unfolds, timespans[:, t].numpy(), cell.epsilon
        )
        states.append(v)
        outputs.append(reference.ltc_output(v, params, cell.motor_size))
    return np.stack(outputs, 1), np.stack(states, 1)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("mapping", ["affine", "linear", None])
def test_sequence_equals_the_numpy_equation(mapping, implicit):
    x, h, timespans, resets = data()
    timespans[0, 2] = 0.0
    timespans[1, 3] = 1e6
    for ltc in layers(
        input_mapping=mapping, output_mapping=mapping, implicit_param_constraints=implicit
    ):
        ltc.double()
        outputs, last = ltc(x, h, timespans, resets)
        expected, states = by_equation(ltc, x, h, timespans, resets)
        np.testing.assert_allclose(outputs.detach(), expected, atol=1e-10)
        np.testing.assert_allclose(last.detach(), states[:, -1], atol=1e-10)


def test_one_synapse_by_hand():
    """Two neurons, one synapse 1 → 0, no input: a step of two unfolds worked out on paper."""
    wiring = Wiring(2)
    wiring.add_synapse(1, 0, -1)
    wiring.set_output_dim(1)
    wiring.build(1)
    cell = LTCCell(wiring, None, None, None, ode_unfolds=2, epsilon=0.0).double()
    values = {"cm": 0.5, "gleak": 0.25, "vleak": 0.2, "sigma": 4.0, "mu": 0.5, "w": 2.0}
    with torch.no_grad():
        for name, value in values.items():
            getattr(cell, name).fill_(value)
    # Neuron 1 leaks: v' = (0.5 v + 0.5 · 0.25 · 0.2) / (0.5 + 0.5 · 0.25) = (v + 0.05) / 1.25.
    # Neuron 0 is pulled to -1: conductance 0.25 + 2 s, with s = sigmoid(4 (v1 - 0.5)).
    v0, v1 = 0.0, 1.0
    for _ in range(2):
        s = 1 / (1 + np.exp(-4 * (v1 - 0.5)))
        v0 = (0.5 * v0 + 0.5 * (0.05 - 2 * s)) / (0.5 + 0.5 * (0.25 + 2 * s))
        v1 = (v1 + 0.05) / 1.25
    output, state = cell(torch.zeros(1, 1).double(), torch.tensor([[0.0, 1.0]]).double(), 1.0)
    np.testing.assert_allclose(state.detach(), [[v0, v1]], atol=1e-15)
    np.testing.assert_allclose(output.detach(), [[v0]], atol=1e-15)


@pytest.mark.parametrize("varying", [False, True])
def test_gradcheck_with_resets(varying):
    x, h, timespans, resets = data(b=2, t=3)
    for ltc in layers():
        ltc.double()
        x.requires_grad_(), h.requires_grad_()
        names, parameters = zip(*ltc.named_parameters(), strict=True)

        def run(x, h, timespans, *parameters, ltc=ltc, names=names):
            values = dict(zip(names, parameters, strict=True))
            dt = timespans if varying else 0.7
            return torch.func.functional_call(ltc, values, (x, h, dt, resets))

        inputs = (x, h, timespans.requires_grad_(varying), *parameters)
        torch.autograd.gradcheck(run, inputs, fast_mode=True)


WIRINGS = {
    "AutoNCP": (lambda w: w.AutoNCP(N, 3)),
    "NCP": (lambda w: w.NCP(5, 4, 3, 2, 3, 4, 2)),
    "FullyConnected": (lambda w: w.FullyConnected(N, 4)),
    "Random": (lambda w: w.Random(N, 4, 0.5)),
}


@pytest.mark.parametrize("kind", WIRINGS)
@pytest.mark.parametrize("mixed_memory", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("with_kernel", [False, True])
def test_ncps_gives_the_same_outputs_and_gradients(kind, mixed_memory, implicit, with_kernel):
    import ncp_agents.wirings

    x, h, _, _ = data(dtype=torch.float32)
    kwargs = {"mixed_memory": mixed_memory, "implicit_param_constraints": implicit}
    theirs = ncps.torch.LTC(I, WIRINGS[kind](ncps.wirings), **kwargs)
    ours = LTC(I, WIRINGS[kind](ncp_agents.wirings), **kwargs)
    ours.load_state_dict(theirs.state_dict())
    state = (h, 0.5 * h) if mixed_memory else h
    results = []
    for rnn in (ours, theirs):
        inputs = x.clone().requires_grad_()
        if with_kernel:
            output, _ = rnn(inputs, state)
        else:
            with kernels.off():
                output, _ = rnn(inputs, state)
        output.square().sum().backward()
        grads = {k: p.grad for k, p in rnn.named_parameters() if p.requires_grad}
        results.append((output, inputs.grad, grads))
    (out, dx, grads), (out_ref, dx_ref, grads_ref) = results
    torch.testing.assert_close(out, out_ref, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dx, dx_ref, atol=1e-4, rtol=1e-4)
    assert grads.keys() == grads_ref.keys()
    for key, grad in grads.items():
        scale = grads_ref[key].abs().max().clamp(min=1.0)
        torch.testing.assert_close(grad / scale, grads_ref[key] / scale, atol=1e-5, rtol=1e-4)


def test_a_seed_gives_the_parameters_that_ncps_draws():
    torch.manual_seed(3)
    theirs = ncps.torch.LTC(I, ncps.wirings.AutoNCP(N, 3))
    torch.manual_seed(3)
    ours = LTC(I, AutoNCP(N, 3))
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_timespan_zero_leaves_the_state_as_it_was():
    for dtype in (torch.float32, torch.float64):  # kernel and plain
        ltc = LTC(I, AutoNCP(N, 3)).to(dtype)
        x, h, _, _ = data(dtype)
        _, last = ltc(x, h, 0.0)
        assert torch.equal(last, h)
        timespans = torch.zeros(B, T, dtype=dtype, requires_grad=True)
        states, _ = ltc.states(x, h, timespans)
        assert torch.equal(states, h[:, None].expand_as(states))
        states.sum().backward()
        assert not any(p.grad.isnan().any() for p in ltc.parameters() if p.grad is not None)


def test_a_timespan_of_zero_can_grow():
    """Its slope is that of a small one, with a kernel there or not."""
    for dtype in (torch.float32, torch.float64):
        ltc = LTC(I, AutoNCP(N, 3)).to(dtype)
        x, h, timespans, _ = data(dtype)
        timespans[:, 1] = 0.0
        timespans.requires_grad_()
        ltc(x, h, timespans)[0].sum().backward()
        small = 1e-3 if dtype == torch.float32 else 1e-7
        ends = timespans.detach().clone(), timespans.detach().clone()
        ends[1][0, 1] = small
        (before, after) = (ltc(x, h, end)[0].sum() for end in ends)
        slope = (after - before) / small
        torch.testing.assert_close(timespans.grad[0, 1], slope, rtol=0.02, atol=0.02)


def test_a_long_timespan_reaches_the_steady_state():
    """With one constant input and no synapse between neurons, v tends to pull / conductance."""
    wiring = Wiring(1)
    wiring.set_output_dim(1)
    wiring.build(1)
    wiring.add_sensory_synapse(0, 0, 1)
    ltc = LTC(1, wiring, input_mapping=None, output_mapping=None).double()
    x = torch.full((1, 1, 1), 0.7).double()
    _, last = ltc(x, timespans=1e9)
    membrane = ltc.rnn_cell.membrane()
    conductance, pull = membrane.base(x[0])
    torch.testing.assert_close(last, pull / conductance, atol=1e-6, rtol=0)


def test_a_reset_equals_a_fresh_start():
    ltc = LTC(I, AutoNCP(N, 3)).double()
    x, h, _, _ = data()
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 4] = True
    states, last = ltc.states(x, h, resets=resets)
    fresh, last_fresh = ltc.states(x[:, 4:])
    torch.testing.assert_close(states[:, 4:], fresh)
    torch.testing.assert_close(last, last_fresh)


def test_a_loaded_mask_decides_which_synapses_exist():
    one, other = LTC(I, AutoNCP(N, 3, seed=1)).double(), LTC(I, AutoNCP(N, 3, seed=2)).double()
    x, h, _, _ = data()
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(x, h)[0], one(x, h)[0])


def test_weight_constraints_clip_explicitly_or_not_at_all():
    wiring = AutoNCP(N, 3)
    explicit = LTCCell(wiring, I)
    with torch.no_grad():
        explicit.w -= 0.5
        explicit.cm -= 10
    explicit.apply_weight_constraints()
    assert explicit.w.min() == 0.0
    assert explicit.cm.max() == 0.0
    implicit = LTCCell(wiring, I, implicit_param_constraints=True)
    with torch.no_grad():
        implicit.w -= 10
    implicit.apply_weight_constraints()
    assert implicit.w.max() < 0.0


def test_it_learns_a_sine():
    ltc = LTC(2, AutoNCP(16, 1))
    time = torch.linspace(0, 6, 48)
    x = torch.stack([time.sin(), time.cos()], -1)[None]
    target = (2 * time).sin()[None, :, None]
    optimiser = torch.optim.Adam(ltc.parameters(), 0.02)
    for step in range(200):
        loss = (ltc(x)[0] - target).square().mean()
        if step == 0:
            first = loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1 * first


def test_dense_ltc_is_fully_connected():
    ours = LTC(I, N)
    assert isinstance(ours.wiring, FullyConnected)
    assert ours.rnn_cell.synapse_count == N * N
    assert ours.rnn_cell.sensory_synapse_count == I * N
