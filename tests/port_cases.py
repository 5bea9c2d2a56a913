"""The table of cases that every port must pass, and what is right: outputs by
`layers/reference.py` in NumPy, gradients by torch through single steps of its cells, in float64.

Axes: B batch, T steps, I inputs, N neurons.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch

from ncp_agents.export import convert
from ncp_agents.layers import reference
from ncp_agents.layers.checks import MODES
from ncp_agents.torch import LTC, CfC
from ncp_agents.wirings import FullyConnected, wiring_from_config

B, T, I, N = 3, 5, 4, 12  # noqa: E741
NCP = {"kind": "AutoNCP", "units": N, "output_size": 3, "sparsity_level": 0.5, "seed": 7}
RANDOM = {"kind": "Random", "units": N, "output_dim": 2, "sparsity_level": 0.6, "random_seed": 3}


@dataclass(frozen=True)
class Case:
    kind: str
    """"CfC" or "LTC"."""
    units: Any
    """N, or a wiring's config."""
    timespans: bool = False
    masked: bool = False
    """Steps that count for nothing: the state stays, and before the first that counts the output
    is 0. The way of Keras."""
    resets: bool = False
    """States forgotten before a step. The way of the other ports."""
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        wiring = self.units["kind"] if isinstance(self.units, dict) else "dense"
        extras = [name for name in ("timespans", "masked", "resets") if getattr(self, name)]
        settings = [f"{k}={v}" for k, v in self.settings.items()]
        return " ".join([self.kind, wiring, *settings, *extras])


DENSE = {"backbone_units": 10, "backbone_layers": 2}
TIMES = [(False, {}), (True, {}), (False, {"masked": True}), (True, {"masked": True})]
TIMES += [(False, {"resets": True}), (True, {"resets": True})]
BOTH = [(False, {}), (True, {"masked": True}), (True, {"resets": True})]

CASES = [
    *(
        Case(
            "CfC", units, varies, **steps, settings={"mode": mode, **(DENSE if units == N else {})}
        )
        for units, mode, (varies, steps) in product((N, NCP), MODES, TIMES)
    ),
    *(
        Case("CfC", units, varies, **steps, settings={"mixed_memory": True, **extra})
        for (units, extra), (varies, steps) in product([(N, DENSE), (NCP, {})], BOTH)
    ),
    *(
        Case("CfC", N, varies, settings={"backbone_units": 0, "backbone_layers": 0})
        for varies in (False, True)
    ),
    *(
        Case("CfC", N, True, settings={"activation": name, **DENSE})
        for name in reference.ACTIVATIONS
        if name != "lecun_tanh"
    ),
    Case("CfC", NCP, True, settings={"mask_time_gates": True}),
    *(
        Case("LTC", NCP, varies, **steps, settings={"ode_unfolds": 2, **extra})
        for extra, pairs in (({}, TIMES), ({"mixed_memory": True}, BOTH))
        for varies, steps in pairs
    ),
    Case("LTC", N, True),
    Case("LTC", RANDOM, True, settings={"implicit_param_constraints": False, "ode_unfolds": 3}),
    *(
        Case("LTC", RANDOM, settings={"ode_unfolds": 2, "input_mapping": i, "output_mapping": o})
        for i, o in (("linear", None), (None, "linear"))
    ),
]


def question(case: Case, seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """→ the layer's description, as `ncp_agents.export.convert` has it, and the arrays.

    They are `x` (B, T, I), `timespans`, `mask`, `resets` (B, T) where there are, `h` and, with
    mixed memory, `c` (B, N) before the first step, `cotangent` (B, T, M) and `h_cotangent` (B, N),
    and `weights/<name>`.

    Gradients are those of sum(output * cotangent) + sum(last h * h_cotangent)."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    layer = _layer(case)
    arrays: dict[str, np.ndarray] = {"x": rng.normal(size=(B, T, I)), "h": _small(rng)}
    if case.timespans:
        arrays["timespans"] = rng.uniform(0.2, 2.0, (B, T))
    if case.masked:
        arrays["mask"] = np.array([[1] * T, [0, 1, 1, 0, 1], [0, 0, 1, 1, 0]], bool)
    if case.resets:
        arrays["resets"] = np.array([[0] * T, [0, 1, 0, 0, 1], [1, 0, 1, 1, 0]], bool)
    if layer.use_mixed:
        arrays["c"] = _small(rng)
    arrays["cotangent"] = rng.normal(size=(B, T, layer.output_size))
    arrays["h_cotangent"] = rng.normal(size=(B, N))
    for name, value in layer.state_dict().items():
        noise = 0.0 if name.endswith("mask") else rng.uniform(0.0, 0.2, value.shape)
        arrays[f"weights/{name}"] = value.numpy() + noise
    return convert.describe(layer), {
        name: value if value.dtype == bool else value.astype(np.float32)
        for name, value in arrays.items()
    }


def answer(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`output` (B, T, M), `state` (B, N) after the last step, and `gradient/<array>` of x,
    timespans, h, c and of every weight."""
    layer = _layer(case)
    given = {
        name: torch.tensor(value, dtype=None if value.dtype == bool else torch.float64)
        for name, value in arrays.items()
    }
    weights = {n.removeprefix("weights/"): v for n, v in given.items() if n.startswith("weights/")}
    layer.load_state_dict(weights)
    leaves = {name: given[name] for name in ("x", "timespans", "h", "c") if name in given}
    for leaf in leaves.values():
        leaf.requires_grad_()
    output, state = _by_steps(layer, given)
    loss = (output * given["cotangent"]).sum() + (state * given["h_cotangent"]).sum()
    leaves |= {f"weights/{name}": weight for name, weight in layer.named_parameters()}
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    result = {f"gradient/{k}": g.numpy() for k, g in zip(leaves, found, strict=True)}
    result |= {"output": output.detach().numpy(), "state": state.detach().numpy()}

    by_reference = _by_reference(case, layer, arrays)
    for name, value in by_reference.items():
        np.testing.assert_allclose(result[name], value, rtol=0, atol=1e-10)
    return result | by_reference


def check(answers: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Equal within 2e-5 of the largest entry, or of 1: float32's rounding, grown over the steps,
    comes to half of that and differs by instruction set."""
    assert sorted(answers) == sorted(expected)
    for name, right in expected.items():
        tolerance = 2e-5 * max(1.0, float(np.abs(right).max()))
        np.testing.assert_allclose(answers[name], right, rtol=0, atol=tolerance, err_msg=name)


def _small(rng):
    return rng.uniform(-0.5, 0.5, (B, N))


def _layer(case):
    units = wiring_from_config(case.units) if isinstance(case.units, dict) else case.units
    if case.kind == "LTC" and isinstance(units, int):
        units = FullyConnected(units)
    return {"CfC": CfC, "LTC": LTC}[case.kind](I, units, **case.settings).double()


def _by_steps(layer, given):
    """Output and last state, one step of the cells after another."""
    h, c = given["h"], given.get("c")
    outputs, output = [], torch.zeros((), dtype=torch.float64)
    for t in range(T):
        now = {n: given[n][:, t, None] for n in ("timespans", "mask", "resets") if n in given}
        if "resets" in now:
            h = torch.where(now["resets"], 0.0, h)
            c = None if c is None else torch.where(now["resets"], 0.0, c)
        x, before, memory = given["x"][:, t], h, c
        if c is not None:
            h, c = layer.lstm(layer.lstm.input_map(x), h, c)
        shown, h = layer.rnn_cell(x, h, now.get("timespans", 1.0))
        if "mask" in now:
            h = torch.where(now["mask"], h, before)
            c = None if c is None else torch.where(now["mask"], c, memory)
            shown = torch.where(now["mask"], shown, output)
        output = shown
        outputs.append(output)
    return torch.stack(outputs, 1), h


def _by_reference(case, layer, arrays):
    """The same in NumPy, without torch."""
    weights = {n.removeprefix("weights/"): np.float64(v) for n, v in arrays.items() if "/" in n}
    of_cell = {n.removeprefix("rnn_cell."): w for n, w in weights.items() if "rnn_cell" in n}
    of_memory = {n.removeprefix("lstm."): w for n, w in weights.items() if n.startswith("lstm.")}
    if case.settings.get("implicit_param_constraints", True):
        for name in {"cm", "gleak", "w", "sensory_w"} & {*of_cell}:
            of_cell[name] = np.log1p(np.exp(of_cell[name]))
    options = {k: v for k, v in case.settings.items() if k in ("mode", "mask_time_gates")}

    def step(x, h, dt):
        if case.kind == "LTC":
            h = reference.ltc_step(x, h, of_cell, layer.rnn_cell.ode_unfolds, dt)
            return reference.ltc_output(h, of_cell, layer.output_size), h
        if layer.wiring:
            wiring = layer.wiring
            return reference.wired_cfc_step(x, h, of_cell, wiring, timespan=dt, **options)
        activation = case.settings.get("activation", "lecun_tanh")
        h = reference.cfc_step(x, h, of_cell, timespan=dt, activation=activation, **options)
        return h, h

    h, c = np.float64(arrays["h"]), arrays.get("c")
    outputs, output = [], 0.0
    for t in range(T):
        keep = ~arrays["resets"][:, t, None] if case.resets else 1.0
        h, c = h * keep, None if c is None else c * keep
        x, before, memory = arrays["x"][:, t], h, c
        if c is not None:
            h, c = reference.memory_step(x, (h, c), of_memory)
        shown, h = step(x, h, arrays["timespans"][:, t] if case.timespans else 1.0)
        if case.masked:
            counts = arrays["mask"][:, t, None]
            h, shown = np.where(counts, h, before), np.where(counts, shown, output)
            c = None if c is None else np.where(counts, c, memory)
        output = shown
        outputs.append(output)
    return {"output": np.stack(outputs, 1), "state": h}
