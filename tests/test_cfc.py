"""CfC in torch: parity with ncps, time, memory, resets, wiring, learning."""

from contextlib import nullcontext

import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import torch
from torch import Tensor

from ncp_agents.layers import reference
from ncp_agents.layers.checks import MODES
from ncp_agents.torch import CfC, CfCCell, kernels
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random

BACKBONES = ((0, 0), (16, 1), (12, 3))
ACTIVATIONS = ("lecun_tanh", "tanh", "relu", "silu", "gelu")
I, N, B, T = 5, 12, 3, 7  # noqa: E741


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def dense(mode="default", backbone=(0, 0), **kwargs) -> CfC:
    units, layers = backbone
    return CfC(I, N, mode=mode, backbone_units=units, backbone_layers=layers, **kwargs)


def wired(mode="default", **kwargs) -> CfC:
    return CfC(I, AutoNCP(N, 3), mode=mode, **kwargs)


def circuits(mode):
    yield from (dense(mode, backbone) for backbone in BACKBONES)
    yield wired(mode)
    yield CfC(I, FullyConnected(N, 4), mode=mode)
    yield CfC(I, Random(N, 4, 0.5), mode=mode)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter away from special values such as w_tau = 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.1 * noise)


def data(seed=0, dtype=torch.float64, b=B, t=T):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, I, generator=g, dtype=dtype)
    h = torch.randn(b, N, generator=g, dtype=dtype)
    timespans = 0.1 + 2 * torch.rand(b, t, generator=g, dtype=dtype)
    resets = torch.rand(b, t, generator=g) < 0.3
    return x, h, timespans, resets


def numpy_weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {k: v.detach().numpy() for k, v in module.state_dict().items()}


def by_equation(rnn: CfC, x, h, timespans, resets) -> np.ndarray:
    """States of all neurons (B, T, N), step by step from `layers/reference.py`."""
    weights = numpy_weights(rnn.rnn_cell)
    states = []
    h = h.numpy()
    for t in range(x.shape[1]):
        h = np.where(resets[:, t : t + 1].numpy(), 0.0, h)
        step_input, dt = x[:, t].numpy(), timespans[:, t : t + 1].numpy()
        if isinstance(rnn.rnn_cell, CfCCell):
            h = reference.cfc_step(
                step_input, h, weights, rnn.rnn_cell.mode, dt, rnn.rnn_cell.spec.activation
            )
        else:
            _, h = reference.wired_cfc_step(
                step_input, h, weights, rnn.wiring, rnn.rnn_cell.mode, dt
            )
        states.append(h)
    return np.stack(states, 1)


@pytest.mark.parametrize("mode", MODES)
def test_scan_equals_the_numpy_equation(mode):
    x, h, timespans, resets = data()
    for rnn in circuits(mode):
        rnn.double()
        randomise(rnn)
        states, last = rnn.states(x, h, timespans, resets)
        expected = by_equation(rnn, x, h, timespans, resets)
        np.testing.assert_allclose(states.detach(), expected, atol=1e-12)
        np.testing.assert_allclose(last.detach(), expected[:, -1], atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_backbone_activation_equals_the_numpy_equation(activation):
    x, h, timespans, resets = data()
    rnn = dense(backbone=(9, 2), activation=activation).double()
    states, _ = rnn.states(x, h, timespans, resets)
    expected = by_equation(rnn, x, h, timespans, resets)
    np.testing.assert_allclose(states.detach(), expected, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("varying", [False, True])
def test_gradcheck_with_resets(mode, varying):
    x, h, timespans, resets = data(b=2, t=3)
    for rnn in circuits(mode):
        rnn.double()
        randomise(rnn)
        x.requires_grad_(), h.requires_grad_()
        names, parameters = zip(*rnn.named_parameters(), strict=True)

        def run(x, h, timespans, *parameters, rnn=rnn, names=names):
            values = dict(zip(names, parameters, strict=True))
            dt = timespans if varying else 0.7
            return torch.func.functional_call(rnn, values, (x, h, dt, resets))

        inputs = (x, h, timespans.requires_grad_(varying), *parameters)
        torch.autograd.gradcheck(run, inputs, fast_mode=True)


def as_ncps(rnn: CfC) -> torch.nn.Module:
    """The ncps layer with the same weights."""
    cell = rnn.rnn_cell
    if isinstance(cell, CfCCell):
        theirs = ncps.torch.CfC(
            I,
            N,
            proj_size=rnn.proj_size,
            mixed_memory=rnn.use_mixed,
            mode=cell.mode,
            activation=cell.spec.activation,
            backbone_units=cell.backbone["0"].weight.shape[0] if cell.backbone_layers else 0,
            backbone_layers=cell.backbone_layers,
        )
    else:
        theirs = ncps.torch.CfC(
            I,
            ncps.wirings.AutoNCP(N, 3),
            proj_size=rnn.proj_size,
            mixed_memory=rnn.use_mixed,
            mode=cell.mode,
        )
    theirs.load_state_dict(rnn.state_dict())
    return theirs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mixed_memory", [False, True])
def test_ncps_gives_the_same_outputs_and_gradients(mode, mixed_memory):
    x, h, _, _ = data(dtype=torch.float32)
    kwargs = {"mixed_memory": mixed_memory, "proj_size": 4}
    for ours in [*(dense(mode, b, **kwargs) for b in BACKBONES), wired(mode, **kwargs)]:
        randomise(ours)
        theirs = as_ncps(ours)
        theirs.fc = ours.fc  # ncps projects all neurons where ours projects the outputs
        state = (h, 0.5 * h) if mixed_memory else h
        results = []
        for rnn in (ours, theirs):
            inputs = x.clone().requires_grad_()
            output, _ = rnn(inputs, state)
            ours.zero_grad()
            output.square().sum().backward()
            grads = {k: p.grad for k, p in rnn.named_parameters() if p.requires_grad}
            results.append((output, inputs.grad, {k: v.clone() for k, v in grads.items()}))
        (out, dx, grads), (out_ref, dx_ref, grads_ref) = results
        torch.testing.assert_close(out, out_ref, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dx, dx_ref, atol=1e-4, rtol=1e-4)
        assert grads.keys() == grads_ref.keys()
        for key, grad in grads.items():
            torch.testing.assert_close(grad, grads_ref[key], atol=2e-4, rtol=1e-4)


def test_timespan_a_row_equals_rows_run_alone():
    """With B == N, where an (B,) timespan would broadcast over neurons unnoticed."""
    x, _, timespans, _ = data(b=N)
    for rnn in (dense().double(), wired().double()):
        together, _ = rnn(x, timespans=timespans)
        for row in range(N):
            alone, _ = rnn(x[row], timespans=timespans[row])
            torch.testing.assert_close(together[row], alone)


def test_all_forms_of_timespans_agree():
    x, h, timespans, resets = data()
    batch_first, time_first = wired().double(), wired(batch_first=False).double()
    time_first.load_state_dict(batch_first.state_dict())
    expected, state = batch_first(x, h, timespans, resets)
    for dt in (timespans[..., None], timespans):
        torch.testing.assert_close(batch_first(x, h, dt, resets)[0], expected)
        output, last = time_first(x.transpose(0, 1), h, dt.transpose(0, 1), resets.T)
        torch.testing.assert_close(output.transpose(0, 1), expected)
        torch.testing.assert_close(last, state)
    for constant in (1, 1.0, torch.tensor(1.0), torch.ones(B, T), None):
        torch.testing.assert_close(
            batch_first(x, h, constant)[0], batch_first(x, h, torch.ones(B, T, 1))[0]
        )


def test_cut_sequence_equals_whole():
    x, h, timespans, resets = data()
    for rnn in (dense(backbone=(16, 1)), wired(), wired(mixed_memory=True)):
        rnn.double()
        state = (h, h) if rnn.use_mixed else h
        whole, last = rnn(x, state, timespans, resets)
        parts = []
        for cut in (slice(0, 1), slice(1, 5), slice(5, None)):
            part, state = rnn(x[:, cut], state, timespans[:, cut], resets[:, cut])
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole)
        torch.testing.assert_close(state, last)


def test_reset_clears_only_its_own_row():
    x, h, _, _ = data()
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[1, 4] = True
    for rnn in (dense(), dense(backbone=(8, 1)), wired(), wired(mixed_memory=True)):
        rnn.double()
        state = (h, h) if rnn.use_mixed else h
        without, _ = rnn(x, state)
        output, _ = rnn(x, state, resets=resets)
        fresh, _ = rnn(x[1:2, 4:])
        torch.testing.assert_close(output[[0, 2]], without[[0, 2]])
        torch.testing.assert_close(output[1, :4], without[1, :4])
        torch.testing.assert_close(output[1:2, 4:], fresh)


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_zero_have_their_gradient_where_resets_are(mode):
    rnn = wired(mode).double()
    for cell in rnn.rnn_cell.cells:
        cell.ff1.weight.data[:, cell.input_size :] = 0.0
    x, h, _, resets = data()
    found = []
    for context in (nullcontext(), kernels.off()):
        rnn.zero_grad()
        with context:
            rnn(x, h, resets=resets)[0].square().sum().backward()
        found.append([p.grad.clone() for p in rnn.parameters()])
    torch.testing.assert_close(*found)


def test_no_gradient_crosses_a_reset():
    x, _, _, _ = data()
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 4] = True
    x.requires_grad_()
    wired().double()(x, resets=resets)[0][:, 4:].sum().backward()
    assert (x.grad[0, :4] == 0).all()
    assert (x.grad[1, :4] != 0).any()


def test_long_timespan_reaches_its_limit():
    """For a head time_a of +1, the gate is 1 after a long time: only tanh(ff2) is left."""
    rnn = dense().double()
    with torch.no_grad():
        rnn.rnn_cell.time_a.weight.zero_()
        rnn.rnn_cell.time_a.bias.fill_(1.0)
    x, h, _, _ = data(t=1)
    output, _ = rnn(x, h, 1e9)
    expected = torch.tanh(rnn.rnn_cell.ff2(torch.cat([x[:, 0], h], -1)))
    torch.testing.assert_close(output[:, 0], expected)


@pytest.mark.parametrize("mode", MODES)
def test_every_parameter_moves(mode):
    x, _, _, _ = data(dtype=torch.float32)
    for rnn in (dense(mode, (8, 2)), wired(mode), wired(mode, mixed_memory=True, proj_size=2)):
        before = {k: v.clone() for k, v in rnn.state_dict().items()}
        optimizer = torch.optim.SGD(rnn.parameters(), lr=1.0)
        rnn(x)[0].square().sum().backward()
        optimizer.step()
        after = rnn.state_dict()
        still = [k for k, v in before.items() if "mask" not in k and torch.equal(v, after[k])]
        assert not still


def test_masked_input_has_zero_jacobian():
    rnn = wired().double()
    x, _, _, _ = data(t=1)
    jacobian = torch.autograd.functional.jacobian(lambda x: rnn.states(x)[0].sum((0, 1)), x)
    assert isinstance(jacobian, Tensor)
    # In the first step h = 0, so only ff1 and ff2 carry the input, but for the dense time gates.
    masked = CfC(I, AutoNCP(N, 3), mask_time_gates=True).double()
    sparse = torch.autograd.functional.jacobian(lambda x: masked.states(x)[0].sum((0, 1)), x)
    inter = masked.wiring.layers[0]
    absent = torch.from_numpy(masked.wiring.sensory_adjacency_matrix[:, inter] == 0)
    by_synapse = sparse.sum((1, 2))[: len(inter)].T
    assert absent.any()
    assert (by_synapse[absent] == 0).all()
    assert (by_synapse[~absent] != 0).all()
    assert (jacobian.sum((1, 2))[: len(inter)].T[absent] != 0).any()


def test_wired_output_is_the_motor_neurons_of_any_wiring():
    x, _, _, _ = data()
    for wiring, motor in ((AutoNCP(N, 3), 3), (FullyConnected(N, 4), 4), (Random(N, 5, 0.2), 5)):
        rnn = CfC(I, wiring, proj_size=2).double()
        assert rnn.output_size == motor
        assert rnn(x)[0].shape == (B, T, 2)
        states, _ = rnn.states(x)
        start = N - len(wiring.layers[-1])
        torch.testing.assert_close(rnn.fc(states[..., start : start + motor]), rnn(x)[0])


def test_last_output_only_and_unbatched():
    x, h, timespans, resets = data()
    for batch_first in (True, False):
        rnn = wired(return_sequences=False, batch_first=batch_first).double()
        whole = x if batch_first else x.transpose(0, 1)
        output, state = rnn(whole)
        assert output.shape == (B, 3)
        torch.testing.assert_close(output, state[:, rnn.output_slice])
        alone, alone_state = rnn(x[0], h[0], timespans[0], resets[0])
        assert alone.shape == (3,)
        assert alone_state.shape == (N,)


def test_dropout_acts_with_one_backbone_layer_and_only_in_training():
    x, _, _, _ = data()
    rnn = dense(backbone=(16, 1), backbone_dropout=0.5).double()
    assert not torch.equal(rnn(x)[0], rnn(x)[0])
    rnn.eval()
    torch.testing.assert_close(rnn(x)[0], rnn(x)[0])


def test_sequences_shorter_than_the_chain_of_layers():
    """An NCP with unequal layers, where the skewed time of the scan is easiest to get wrong."""
    wiring = NCP(5, 4, 3, 2, 2, 3, 2)
    rnn = CfC(I, wiring).double()
    x, h, timespans, resets = data()
    for steps in (1, 2, 3, T):
        cut = slice(0, steps)
        states, _ = rnn.states(x[:, cut], h, timespans[:, cut], resets[:, cut])
        expected = by_equation(rnn, x[:, cut], h, timespans[:, cut], resets[:, cut])
        np.testing.assert_allclose(states.detach(), expected, atol=1e-12)


def test_frozen_weights_are_prepared_once_inside_and_each_time_outside():
    x, h, _, _ = data(t=1)
    rnn = wired().double()
    expected = rnn(x, h)[0], rnn(x, h, 0.5)[0]
    with torch.no_grad(), rnn.frozen():
        for _ in range(2):
            torch.testing.assert_close((rnn(x, h)[0], rnn(x, h, 0.5)[0]), expected)
            with rnn.frozen():  # as an evaluation within a rollout
                torch.testing.assert_close(rnn(x, h)[0], expected[0])
    randomise(rnn)
    with torch.no_grad():
        changed = rnn(x, h)[0]
        assert not torch.allclose(changed, expected[0])
        with rnn.frozen():
            torch.testing.assert_close(rnn(x, h)[0], changed)
    with rnn.frozen():
        rnn(x, h)[0].sum().backward()  # gradients pass as ever
    assert rnn.rnn_cell.layer_0.ff1.weight.grad.any()


def test_balanced_init_keeps_the_signal_through_all_layers():
    """Xavier's rule, which ncps uses, loses about a factor of two a layer (see `balance_`)."""
    x = torch.relu(torch.randn(16, 64, 128))
    spread = {}
    for init in ("xavier", "balanced"):
        rnn = CfC(128, AutoNCP(64, 16), init=init)
        states, _ = rnn.states(x)
        spread[init] = [part.std().item() for part in states.split(rnn.rnn_cell.layer_sizes, -1)]
    assert spread["xavier"][2] < 0.5 * spread["xavier"][0] < 0.25
    assert all(0.4 < std < 0.7 for std in spread["balanced"])


def test_balanced_init_needs_a_cell_without_backbone():
    with pytest.raises(ValueError, match="backbone"):
        CfC(I, N, init="balanced")
