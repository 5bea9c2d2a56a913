"""The NumPy equations: numbers worked out by hand, limits, and the torch modules of ncps 1.0.1."""

import math

import numpy as np
import pytest
import torch
from ncps.torch import CfCCell, LTCCell, WiredCfCCell
from ncps.torch.lstm import LSTMCell

from ncp_agents.layers.checks import MODES
from ncp_agents.layers.reference import (
    ACTIVATIONS,
    cfc_step,
    ltc_output,
    ltc_step,
    memory_step,
    wired_cfc_step,
)
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random

B, I, N = 3, 4, 6  # noqa: E741
LN3 = math.log(3.0)  # sigmoid(ln 3) = 3/4, tanh(ln 3) = 4/5, tanh(ln 3 / 2) = 1/2
each_mode = pytest.mark.parametrize("mode", MODES)


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def in_double(module):
    """The module in float64, with random parameters, so that no A or w_tau is trivial."""
    module = module.double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.requires_grad:
            torch.nn.init.uniform_(parameter, -1.0, 1.0, generator=generator)
    return module


def weights_of(module):
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def tensors(*values):
    return [torch.from_numpy(value) for value in values]


def assert_equal(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-12)


# CfC


def one_neuron(ff1, ff2=0.0, time_a=0.0, time_b=0.0):
    """Weights of one neuron whose heads are constants, whatever x and h."""
    heads = {"ff1": ff1, "ff2": ff2, "time_a": time_a, "time_b": time_b}
    weights = {f"{name}.weight": np.zeros((1, 2)) for name in heads}
    return weights | {f"{name}.bias": np.array([value]) for name, value in heads.items()}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("default", 0.25 * 0.8 + 0.75 * 0.5),  # g = sigmoid(2 * ln(3)/4 + ln(3)/2) = 3/4
        ("no_gate", 0.8 + 0.75 * 0.5),
    ],
)
def test_gated_modes_by_hand(mode, expected):
    weights = one_neuron(ff1=LN3, ff2=LN3 / 2, time_a=LN3 / 4, time_b=LN3 / 2)
    assert cfc_step([[5.0]], [[7.0]], weights, mode, timespan=2.0) == pytest.approx(expected)


def test_pure_mode_by_hand():
    weights = one_neuron(ff1=-math.log(2)) | {"A": [[3.0]], "w_tau": [[-math.log(2)]]}
    # 3 - 3 * exp(-1 * (ln 2 + ln 2)) * (-ln 2) = 3 + 3/4 ln 2
    assert cfc_step([[5.0]], [[7.0]], weights, "pure") == pytest.approx(3 + 0.75 * math.log(2))


def test_long_timespans_reach_their_limits():
    opening, closing = (one_neuron(LN3, -LN3, time_a=rate) for rate in (1.0, -1.0))
    assert cfc_step([[0.0]], [[0.0]], opening, timespan=1e3) == pytest.approx(-0.8)  # tanh(ff2)
    assert cfc_step([[0.0]], [[0.0]], closing, timespan=1e3) == pytest.approx(0.8)  # tanh(ff1)
    pure = one_neuron(LN3) | {"A": [[0.3]], "w_tau": [[0.1]]}
    assert cfc_step([[0.0]], [[0.0]], pure, "pure", timespan=1e3) == pytest.approx(0.3)  # A


@each_mode
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_cfc_equals_ncps(mode, layers, dropout):
    x, h = arrays((B, I), (B, N))
    cell = CfCCell(I, N, mode, backbone_units=7, backbone_layers=layers, backbone_dropout=dropout)
    cell = in_double(cell).eval()
    expected, _ = cell(*tensors(x, h), 0.7)
    assert_equal(cfc_step(x, h, weights_of(cell), mode, timespan=0.7), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_equal_ncps(activation):
    x, h = arrays((B, I), (B, N))
    cell = in_double(CfCCell(I, N, backbone_activation=activation, backbone_units=7))
    expected, _ = cell(*tensors(x, h), 1.0)
    assert_equal(cfc_step(x, h, weights_of(cell), activation=activation), expected)


@each_mode
def test_masked_cfc_equals_ncps(mode):
    x, h, mask = arrays((B, I), (B, N), (I + N, N))
    mask = np.sign(np.where(abs(mask) > 0.7, mask, 0.0))
    cell = CfCCell(I, N, mode, backbone_layers=0, sparsity_mask=mask)
    cell = in_double(cell)
    expected, _ = cell(*tensors(x, h), 1.3)
    assert_equal(cfc_step(x, h, weights_of(cell), mode, 1.3, mask=mask), expected)


@each_mode
def test_each_row_has_its_own_timespan(mode):
    x, h = arrays((N, I), (N, N))  # B == N, where broadcasting over neurons would not show
    weights = weights_of(in_double(CfCCell(I, N, mode)))
    timespans = np.linspace(0.0, 3.0, N)
    alone = [
        cfc_step(x[i : i + 1], h[i : i + 1], weights, mode, timespans[i].item()) for i in range(N)
    ]
    for shape in ((N,), (N, 1)):
        together = cfc_step(x, h, weights, mode, timespans.reshape(shape))
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-12)


def test_mask_can_limit_the_time_gates_too():
    x, h = arrays((B, I), (B, N))
    weights = weights_of(in_double(CfCCell(I, N, backbone_layers=0)))
    nothing = np.zeros((I + N, N))
    cut = cfc_step(x, h, weights, mask=nothing, mask_time_gates=True)
    assert (cut == cut[0]).all()  # no input arrives: every row is the same
    assert (cfc_step(x, h, weights, mask=nothing) != cut).any()


def test_unknown_mode_and_activation_are_suggested():
    x, h = arrays((B, I), (B, N))
    with pytest.raises(ValueError, match="did you mean 'no_gate'"):
        cfc_step(x, h, {}, mode="nogate")
    with pytest.raises(ValueError, match="did you mean 'silu'"):
        cfc_step(x, h, {}, activation="SiLU")


# Wired CfC


@each_mode
@pytest.mark.parametrize(
    "wiring",
    [AutoNCP(12, 3), NCP(5, 4, 2, 2, 2, 3, 2), FullyConnected(N), Random(N, None, 0.6)],
    ids=lambda wiring: type(wiring).__name__,
)
def test_wired_cfc_equals_ncps(wiring, mode):
    x, h = arrays((B, I), (B, wiring.units))
    cell = in_double(WiredCfCCell(I, wiring, mode))
    output, state = cell(*tensors(x, h), 0.4)
    own_output, own_state = wired_cfc_step(x, h, weights_of(cell), wiring, mode, 0.4)
    assert_equal(own_output, output)
    assert_equal(own_state, state)


def test_wired_output_is_the_motor_neurons():
    x, h = arrays((B, I), (B, N))
    wiring = FullyConnected(N, 2)
    weights = weights_of(in_double(WiredCfCCell(I, wiring)))
    output, state = wired_cfc_step(x, h, weights, wiring)
    np.testing.assert_array_equal(output, state[:, :2])


def test_with_masked_time_gates_an_unwired_input_has_no_effect():
    wiring = AutoNCP(12, 3, sparsity_level=0.8)
    x, h = arrays((B, I), (B, 12))
    weights = weights_of(in_double(WiredCfCCell(I, wiring)))
    inter = wiring.layers[0]
    feeds = wiring.sensory_adjacency_matrix[0][inter] != 0
    moved = x.copy()
    moved[:, 0] += 1.0
    for mask_time_gates in (True, False):
        _, before = wired_cfc_step(x, h, weights, wiring, mask_time_gates=mask_time_gates)
        _, after = wired_cfc_step(moved, h, weights, wiring, mask_time_gates=mask_time_gates)
        changed = (before != after)[:, : len(inter)].any(axis=0)
        assert changed[feeds].all()
        assert changed[~feeds].any() == (not mask_time_gates)


# Memory cell


def test_memory_by_hand():
    weights = {
        "input_map.weight": np.zeros((4, 1)),
        "input_map.bias": np.array([LN3, LN3, LN3 - 1.0, LN3]),
        "recurrent_map.weight": np.zeros((4, 1)),
    }
    h, c = memory_step(np.ones((1, 1)), (np.ones((1, 1)), np.full((1, 1), 2.0)), weights)
    assert c == pytest.approx(2 * 0.75 + 0.8 * 0.75)
    assert h == pytest.approx(math.tanh(2.1) * 0.75)


def test_memory_equals_ncps():
    x, h, c = arrays((B, I), (B, N), (B, N))
    cell = in_double(LSTMCell(I, N))
    expected_h, expected_c = cell(torch.from_numpy(x), tuple(tensors(h, c)))
    own_h, own_c = memory_step(x, (h, c), weights_of(cell))
    assert_equal(own_h, expected_h)
    assert_equal(own_c, expected_c)


# LTC


def leaky(**changes):
    """One neuron, one input, no synapse: cm = 2, gleak = 1, vleak = 3."""
    params = {"cm": [2.0], "gleak": [1.0], "vleak": [3.0]}
    for prefix in ("", "sensory_"):
        params |= {prefix + key: [[1.0]] for key in ("w", "mu", "sigma", "erev")}
        params[f"{prefix}sparsity_mask"] = [[0.0]]
    return params | changes


def test_leak_by_hand():
    # v' = (2 v + 3) / 3 twice, from 0: 1, then 5/3; dt = 2 / 2 = 1
    v = ltc_step([[9.0]], [[0.0]], leaky(), ode_unfolds=2, timespan=2.0, epsilon=0.0)
    assert v == pytest.approx(5 / 3)


def test_sensory_synapse_by_hand():
    params = leaky(
        sensory_sparsity_mask=[[1.0]], sensory_w=[[4.0]], sensory_sigma=[[LN3]], sensory_erev=[[-1]]
    )
    # act = 4 * sigmoid(ln 3 * (2 - 1)) = 3; v' = (2 * 5 + 3 + 3 * -1) / (2 + 1 + 3)
    v = ltc_step([[2.0]], [[5.0]], params, ode_unfolds=1, epsilon=0.0)
    assert v == pytest.approx(10 / 6)


def test_small_unfolds_follow_the_exact_leak():
    # cm dv/dt = gleak (vleak - v): v = 3 (1 - exp(-t / 2)) from 0
    v = ltc_step([[0.0]], [[0.0]], leaky(), ode_unfolds=20_000, timespan=1.5)
    assert v == pytest.approx(3 * (1 - math.exp(-0.75)), abs=1e-4)


def ltc_cell(input_mapping="affine", output_mapping="affine"):
    cell = LTCCell(
        AutoNCP(12, 3), I, input_mapping=input_mapping, output_mapping=output_mapping
    ).double()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in cell.named_parameters():
        if name.startswith(("input_", "output_")):
            parameter.data = torch.rand(parameter.shape, generator=generator).double() + 0.5
    return cell


@pytest.mark.parametrize("mapping", ["affine", "linear", None])
@pytest.mark.parametrize("timespan", [0.3, 1.0, 4.0])
def test_ltc_equals_ncps(mapping, timespan):
    cell = ltc_cell(mapping, mapping)
    x, v = arrays((B, I), (B, 12))
    output, state = cell(*tensors(x, v), timespan)
    own = ltc_step(x, v, weights_of(cell), timespan=timespan)
    assert_equal(own, state)
    assert_equal(ltc_output(own, weights_of(cell), 3), output)


def test_ltc_rows_have_their_own_timespan_and_zero_leaves_the_state():
    x, v = arrays((3, I), (3, 12))
    params = weights_of(ltc_cell())
    together = ltc_step(x, v, params, timespan=np.array([0.0, 0.5, 2.0]))
    np.testing.assert_array_equal(together[0], v[0])
    for row, timespan in ((1, 0.5), (2, 2.0)):
        alone = ltc_step(x[row : row + 1], v[row : row + 1], params, timespan=timespan)
        np.testing.assert_allclose(together[row], alone[0], atol=1e-14)
    params["cm"] = np.zeros(12)  # clipped to zero by training
    np.testing.assert_array_equal(ltc_step(x, v, params, timespan=0.0), v)
