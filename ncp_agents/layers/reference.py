"""One step of each neuron model in NumPy float64: the reference that every port is compared with.

Axes: B batch, I inputs, N neurons, M motor neurons. Matrices of a layer are (targets, sources), as
in a torch state dict; masks and LTC synapses are (sources, targets), as in a wiring. Slow and plain
on purpose: nothing here is hoisted, fused or cached.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ncp_agents import registry
from ncp_agents.layers.checks import MODES
from ncp_agents.wirings import Wiring

Array = np.ndarray
Weights = Mapping[str, Any]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # the tanh form does not overflow


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "lecun_tanh": lambda x: 1.7159 * np.tanh(0.666 * x),  # LeCun et al. 1998, "Efficient BackProp"
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0))),
}


def cfc_step(
    x: Array,
    h: Array,
    weights: Weights,
    mode: str = "default",
    timespan: float | Array = 1.0,
    activation: str = "lecun_tanh",
    mask: Array | None = None,
    mask_time_gates: bool = False,
) -> Array:
    """One step of a closed-form continuous-time (CfC) layer.

        z  = backbone([x, h])
        g  = sigmoid(time_a(z) * dt + time_b(z))
        h' = (1 - g) * tanh(ff1(z)) + g * tanh(ff2(z))              "default"
        h' =           tanh(ff1(z)) + g * tanh(ff2(z))              "no_gate"
        h' = A - A * exp(-dt * (|w_tau| + |ff1(z)|)) * ff1(z)       "pure"

    Args:
        x: (B, I).
        h: (B, N).
        weights: the layer's state dict; the backbone is every `backbone.<k>.weight` in order of k.
        mode: one of `ncp_agents.layers.checks.MODES`.
        timespan: dt in steps, a float or one a row.
        activation: one of ACTIVATIONS, after each backbone layer.
        mask: (I + N, N), nonzero where a synapse is; limits ff1 and ff2. Needs no backbone.
        mask_time_gates: whether it limits time_a and time_b too.

    Returns:
        h' (B, N), output and state in one.

    Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", arXiv:2106.13898.
    """
    registry.get("mode", mode, MODES)
    activate = registry.get("activation", activation, ACTIVATIONS)
    dt = _column(timespan, len(x))

    z = np.concatenate([_double(x), _double(h)], axis=1)
    for layer in _backbone(weights):
        z = activate(_linear(z, weights, layer))

    f1 = _linear(z, weights, "ff1", mask)
    if mode == "pure":
        a, w_tau = _double(weights["A"]), _double(weights["w_tau"])
        return a - a * np.exp(-dt * (np.abs(w_tau) + np.abs(f1))) * f1

    gate_mask = mask if mask_time_gates else None
    g = sigmoid(
        _linear(z, weights, "time_a", gate_mask) * dt + _linear(z, weights, "time_b", gate_mask)
    )
    f1, f2 = np.tanh(f1), np.tanh(_linear(z, weights, "ff2", mask))
    return f1 + g * f2 if mode == "no_gate" else (1.0 - g) * f1 + g * f2


def wired_cfc_step(
    x: Array,
    h: Array,
    weights: Weights,
    wiring: Wiring,
    mode: str = "default",
    timespan: float | Array = 1.0,
    mask_time_gates: bool = False,
) -> tuple[Array, Array]:
    """One step of a CfC on a wiring: one masked CfC a layer, each fed by the new state before it.

    Synapses into a layer limit its ff1 and ff2; inside a layer every neuron reads every other.

    Args:
        x: (B, I).
        h: (B, N), the layers' states side by side, first layer first.
        weights: keys of layer k begin with `layer_<k>.`.
        wiring: built for I inputs.
        mode: as in `cfc_step`.
        timespan: as in `cfc_step`.
        mask_time_gates: as in `cfc_step`.

    Returns:
        Output (B, M): of a wiring with one layer its first M neurons, else its last layer.
        State (B, N): ordered like h.
    """
    signal, new_states, start = _double(x), [], 0
    for k, neurons in enumerate(wiring.layers):
        if k == 0:
            feeding = wiring.sensory_erev_initializer()[:, neurons]
        else:
            feeding = wiring.adjacency_matrix[np.ix_(wiring.layers[k - 1], neurons)]
        mask = np.concatenate([feeding, np.ones((len(neurons), len(neurons)))])
        prefix = f"layer_{k}."
        own = {key[len(prefix) :]: w for key, w in weights.items() if key.startswith(prefix)}
        state = _double(h)[:, start : start + len(neurons)]
        signal = cfc_step(
            signal, state, own, mode, timespan, mask=mask, mask_time_gates=mask_time_gates
        )
        new_states.append(signal)
        start += len(neurons)
    return signal[:, : wiring.output_dim], np.concatenate(new_states, axis=1)


def memory_step(x: Array, state: tuple[Array, Array], weights: Weights) -> tuple[Array, Array]:
    """One step of the memory cell, an LSTM that runs before the neurons when memory is mixed.

        i, ig, fg, og = split(input_map(x) + recurrent_map(h))
        c' = c * sigmoid(fg + 1) + tanh(i) * sigmoid(ig)
        h' = tanh(c') * sigmoid(og)

    Args:
        x: (B, I).
        state: h and c, (B, N) each.
        weights: `input_map.weight` (4N, I), `input_map.bias` (4N,), `recurrent_map.weight` (4N, N).

    Returns:
        h' and c', (B, N) each.

    Source: Lechner and Hasani 2020, "Learning long-term dependencies in irregularly-sampled time
    series", arXiv:2006.04418.
    """
    h, c = map(_double, state)
    z = _linear(_double(x), weights, "input_map") + _linear(h, weights, "recurrent_map")
    candidate, input_gate, forget_gate, output_gate = np.split(z, 4, axis=1)
    c = c * sigmoid(forget_gate + 1.0) + np.tanh(candidate) * sigmoid(input_gate)
    return np.tanh(c) * sigmoid(output_gate), c


def ltc_step(
    x: Array,
    v: Array,
    params: Weights,
    ode_unfolds: int = 6,
    timespan: float | Array = 1.0,
    epsilon: float = 1e-8,
) -> Array:
    """One step of a liquid time-constant (LTC) layer.

        cm dv/dt = gleak (vleak - v) + sum_s act_s (erev_s - v)
        act_s    = w_s * sigmoid(sigma_s (v_source - mu_s))      over the synapses s into a neuron

    Semi-implicit Euler, with activations from before the step, `ode_unfolds` steps of
    dt = timespan / ode_unfolds each:

        v' = (cm v + dt (gleak vleak + sum act erev)) / (cm + dt (gleak + sum act + epsilon))

    A timespan of 0 leaves v exactly as it was.

    Args:
        x: (B, I).
        v: (B, N).
        params: `cm`, `gleak`, `vleak` (N,); `w`, `mu`, `sigma`, `erev`, `sparsity_mask` (N, N); the
            same with `sensory_` (I, N); `input_w`, `input_b` (I,) if the inputs are mapped. Those
            that must be positive (cm, gleak, w) are so already.
        ode_unfolds: steps of the solver.
        timespan: in steps, a float or one a row.
        epsilon: added to the conductance.

    Returns:
        v' (B, N). `ltc_output` reads the motor neurons from it.

    Source: Hasani et al. 2021 (AAAI), "Liquid time-constant networks", arXiv:2006.04439.
    """
    p = {key: _double(value) for key, value in params.items()}
    x = _double(x) * p.get("input_w", 1.0) + p.get("input_b", 0.0)
    v = _double(v)
    dt = _column(timespan, len(v)) / ode_unfolds

    sensory_pull, sensory_conductance = _synapses(x, p, "sensory_")
    for _ in range(ode_unfolds):
        pull, conductance = _synapses(v, p, "")
        pull = pull + sensory_pull + p["gleak"] * p["vleak"]
        conductance = conductance + sensory_conductance + p["gleak"] + epsilon
        # v' - v, so that dt = 0 changes nothing, not even by rounding or where cm is 0
        change = dt * (pull - conductance * v)
        v = v + change / np.where(dt > 0.0, p["cm"] + dt * conductance, 1.0)
    return v


def ltc_output(v: Array, params: Weights, output_dim: int) -> Array:
    """The first M neurons of v (B, N), times `output_w` plus `output_b` where those are given."""
    motor = _double(v)[:, :output_dim]
    return motor * _double(params.get("output_w", 1.0)) + _double(params.get("output_b", 0.0))


def _synapses(v: Array, p: dict[str, Array], prefix: str) -> tuple[Array, Array]:
    """Sums over the sources of act * erev and of act, (B, N) each."""
    w, mu, sigma, erev, mask = (
        p[prefix + key] for key in ("w", "mu", "sigma", "erev", "sparsity_mask")
    )
    act = mask * w * sigmoid(sigma * (v[:, :, None] - mu))
    return (act * erev).sum(axis=1), act.sum(axis=1)


def _linear(z: Array, weights: Weights, name: str, mask: Array | None = None) -> Array:
    matrix = _double(weights[f"{name}.weight"])
    if mask is not None:
        matrix = matrix * (np.asarray(mask) != 0).T
    return z @ matrix.T + _double(weights.get(f"{name}.bias", 0.0))


def _backbone(weights: Weights) -> list[str]:
    """Names of the backbone's linear layers; activations and dropout sit at the indices between."""
    indices = [
        int(key.split(".")[1])
        for key in weights
        if key.startswith("backbone.") and key.endswith(".weight")
    ]
    return [f"backbone.{index}" for index in sorted(indices)]


def _column(timespan: float | Array, batch: int) -> Array:
    """Timespans as (B, 1), so that they never broadcast over neurons."""
    values = _double(timespan)
    return np.full((batch, 1), values) if values.ndim == 0 else values.reshape(batch, 1)


def _double(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)
