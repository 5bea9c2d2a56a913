"""Circuits, shapes and times that Hypothesis draws: what must hold for all of them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_parity import assert_equals_plain

from ncp_agents.torch import LTC, CfC
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

INPUTS = 3


@st.composite
def wirings(draw) -> Wiring:
    small = st.integers(1, 7)
    kind = draw(st.sampled_from(["FullyConnected", "Random", "AutoNCP", "NCP"]))
    motor = draw(small)
    if kind == "FullyConnected":
        return FullyConnected(motor + draw(st.integers(0, 20)), motor)
    if kind == "Random":
        sparsity = draw(st.floats(0.0, 0.9))
        return Random(motor + draw(st.integers(0, 20)), motor, sparsity_level=sparsity)
    if kind == "AutoNCP":
        # Enough units for at least one command and one inter neuron.
        return AutoNCP(motor + draw(st.integers(3, 40)), motor, draw(st.floats(0.1, 0.9)))
    inter, command = draw(small), draw(small)
    return NCP(
        inter,
        command,
        motor,
        draw(st.integers(1, inter)),
        draw(st.integers(1, command)),
        draw(st.integers(0, 2 * command)),
        draw(st.integers(1, command)),
    )


@st.composite
def circuits(draw, mixed_memory: bool) -> SequenceLayer:
    torch.manual_seed(draw(st.integers(0, 2**31)))
    options = {
        "batch_first": draw(st.booleans()),
        "mixed_memory": mixed_memory and draw(st.booleans()),
    }
    if draw(st.booleans()):
        return LTC(
            INPUTS,
            draw(wirings() | st.integers(1, 20)),
            ode_unfolds=draw(st.integers(1, 7)),
            implicit_param_constraints=draw(st.booleans()),
            **options,
        )
    options["mode"] = draw(st.sampled_from(["default", "no_gate", "pure"]))
    if draw(st.booleans()):
        return CfC(INPUTS, draw(wirings()), **options)
    return CfC(
        INPUTS,
        draw(st.integers(1, 20)),
        backbone_units=draw(st.integers(0, 20)),
        backbone_layers=draw(st.integers(1, 3)),
        **options,
    )


def step_by_step(circuit: SequenceLayer, x, timespans, resets) -> torch.Tensor:
    """The cell itself, one step after the other: x, timespans and resets (B, T, …) → (B, T, N)."""
    h = x.new_zeros(x.shape[0], circuit.state_size)
    c, states = h, []
    for t in range(x.shape[1]):
        forgotten = resets[:, t : t + 1]
        h, c = h.masked_fill(forgotten, 0.0), c.masked_fill(forgotten, 0.0)
        if circuit.lstm is not None:
            h, c = circuit.lstm(circuit.lstm.input_map(x[:, t]), h, c)
        _, h = circuit.rnn_cell(x[:, t], h, timespans[:, t : t + 1])
        states.append(h)
    return torch.stack(states, 1)


TIMESPANS = st.sampled_from([0.0, 1e-3, 0.5, 1.0, 3.0, 1e4])


@settings(max_examples=150)
@given(circuits(mixed_memory=True), st.integers(1, 5), st.integers(1, 11), TIMESPANS, st.booleans())
def test_a_sequence_is_its_steps(circuit, rows, steps, timespan, varies):
    circuit = circuit.double()
    x = torch.randn(rows, steps, INPUTS, dtype=torch.float64)
    resets = torch.rand(rows, steps) < 0.3
    timespans = torch.full((rows, steps), timespan, dtype=torch.float64)
    if varies:
        timespans *= torch.rand(rows, steps, dtype=torch.float64)
    expected = step_by_step(circuit, x, timespans, resets)

    given_timespans = timespans if varies else timespan
    order = (lambda values: values) if circuit.batch_first else (lambda values: values.mT)
    if not circuit.batch_first:
        x = x.transpose(0, 1)
        given_timespans = timespans.mT if varies else timespan
    states, _ = circuit.states(x, timespans=given_timespans, resets=order(resets))
    if not circuit.batch_first:
        states = states.transpose(0, 1)
    torch.testing.assert_close(states, expected, rtol=1e-9, atol=1e-10)


@settings(max_examples=100)
@given(circuits(mixed_memory=False), st.integers(1, 40), st.booleans(), st.booleans())
def test_a_kernel_is_plain_torch(circuit, rows, with_timespans, with_resets):
    circuit.batch_first = True
    # A single neuron's gradient can be a sum that cancels.
    assert_equals_plain(circuit, rows, with_timespans, with_resets, tolerance=1e-4)


@settings(max_examples=50)
@given(circuits(mixed_memory=True), st.integers(1, 5), st.integers(2, 20), st.data())
def test_a_sequence_may_be_cut_anywhere(circuit, rows, steps, data):
    circuit.batch_first = True
    x = torch.randn(rows, steps, INPUTS)
    cut = data.draw(st.integers(1, steps - 1))
    with torch.no_grad():
        whole, last = circuit(x)
        first, state = circuit(x[:, :cut])
        second, end = circuit(x[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(end, last, rtol=1e-4, atol=1e-5)
