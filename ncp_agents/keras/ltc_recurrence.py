"""The recurrence of an LTC: a time loop with a custom backward.

Backward keeps the potentials after each step only. It computes the unfolds of a step again and then
reverses them one by one. Of one unfold, with conductance c and pull p of all synapses and the leak,

    v' = v + dt (p - c v) / (cm + dt c)

the gradients are, with l = dv', q = 1 / (cm + dt c) and a = l dt q,

    dp = a,   dc = -a v',   dv = l - a c + (through the synapses),
    dcm = -a (p - c v) q,   ddt = l (p - c v) cm q q

The sensory synapses are computed in the loop too, though they could be before it: for all steps
at once they would not fit into the cache. The batch comes last throughout, see `synapses.py`.

Axes: B batch, T steps, I inputs, N neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ncp_agents.keras.backward import first_order
from ncp_agents.keras.ltc_cell import LTCCell, Membrane, Unfold
from ncp_agents.keras.ops import Tensor, ops, tree
from ncp_agents.keras.recurrence import Arrays, time_loop


def ltc_recurrence(cell: LTCCell, arrays: Arrays, unroll: bool) -> Tensor:
    """Potentials after each step, (T, N, B).

    arrays: `v` (N, B), `x` (T, I, B) as the synapses read it, `dt` (T, 1, B) of one unfold, and
    `mask` (T, 1, B) of 1.0 where a step counts, if any.
    """
    membrane = tree.map_structure(ops.copy, cell.membrane())
    structure = (membrane, arrays)

    @ops.custom_gradient
    def run(*values: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        membrane, given = tree.pack_sequence_as(structure, values)
        states = _forward(cell, membrane, given, unroll)
        kept = ops.stop_gradient(states)  # as in `recurrence`

        def gradient(*received: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            dout = received[0] if upstream is None else upstream
            return first_order(tree.flatten(_backward(cell, membrane, given, kept, dout, unroll)))

        return states, gradient

    return run(*tree.flatten(structure))


def _forward(cell: LTCCell, membrane: Membrane, given: Arrays, unroll: bool) -> Tensor:
    def step(before: Tensor, now: Arrays) -> tuple[Tensor, Tensor]:
        base = cell.base(membrane, cell.sensory.receive(membrane.sensory, now["x"]))
        v = before
        for _ in range(cell.ode_unfolds):
            own = cell.internal.receive(membrane.internal, v)
            v = Unfold.of(membrane.cm, base, own, v, now["dt"]).after
        if "mask" in now:
            v = ops.where(now["mask"] > 0, v, before)
        return v, v

    xs = {name: value for name, value in given.items() if name != "v"}
    return time_loop(step, given["v"], xs, unroll, features=-2)[1]


def _backward(
    cell: LTCCell, membrane: Membrane, given: Arrays, states: Tensor, dout: Tensor, unroll: bool
) -> tuple[Membrane, Arrays]:
    """The gradients of the membrane and of each array."""
    internal, sensory, cm = cell.internal, cell.sensory, membrane.cm

    def step(carried: tuple[Tensor, ...], now: Arrays) -> tuple[Any, Any]:
        v, dt = now["before"], now["dt"]
        inputs = sensory.activity(membrane.sensory, now["x"])
        base = cell.base(membrane, sensory.sums(membrane.sensory, inputs[1]))
        taken = []
        for _ in range(cell.ode_unfolds):
            at, act = internal.activity(membrane.internal, v)
            unfold = Unfold.of(cm, base, internal.sums(membrane.internal, act), v, dt)
            taken.append((at, act, unfold))
            v = unfold.after

        dv = carried[0] + now["dout"]
        held = 0.0
        if "mask" in now:
            held, dv = dv * (1 - now["mask"]), dv * now["mask"]
        totals: Any = None
        for at, act, unfold in reversed(taken):
            dpull = dv * dt * unfold.inverse
            dconductance = -dpull * unfold.after
            moved = unfold.imbalance * unfold.inverse
            ddt = ops.sum(dv * moved * cm * unfold.inverse, axis=0, keepdims=True)
            through, of_internal = internal.gradient(
                membrane.internal, at, act, dconductance, dpull
            )
            parts = (dconductance, dpull, -dpull * moved, ddt, of_internal)
            totals = parts if totals is None else tree.map_structure(ops.add, totals, parts)
            dv = dv - dpull * unfold.conductance + through
        dconductance, dpull, dcm, ddt, of_internal = totals
        dx, of_sensory = sensory.gradient(membrane.sensory, *inputs, dconductance, dpull)
        found = tree.flatten(
            (dv + held, dconductance, dpull, dcm, ddt, dx, of_sensory, of_internal)
        )
        return tuple(found), tuple(found)

    before = ops.concatenate([given["v"][None], states[:-1]], axis=0)
    start = (given["v"],) * 4 + (given["dt"][0], given["x"][0], membrane.sensory, membrane.internal)
    xs = {name: value for name, value in given.items() if name != "v"}
    last, found = time_loop(
        step,
        tuple(ops.zeros_like(value) for value in tree.flatten(start)),
        xs | {"before": before, "dout": dout},
        unroll,
        reverse=True,
        features=-2,
    )
    _, dconductance, dpull, dcm, ddt, dx, of_sensory, of_internal = tree.pack_sequence_as(
        start, found
    )
    dconductance, dpull, dcm = (
        ops.sum(d, axis=(0, 2))[:, None] for d in (dconductance, dpull, dcm)
    )
    of_sensory, of_internal = tree.map_structure(
        lambda d: ops.sum(d, axis=0), (of_sensory, of_internal)
    )
    dleak = dconductance + dpull * membrane.rest
    of_membrane = Membrane(dcm, dleak, dpull * membrane.leak, of_sensory, of_internal)
    of_arrays = {"v": last[0], "x": dx, "dt": ddt, "mask": ops.zeros_like(ddt)}
    return of_membrane, {name: of_arrays[name] for name in given}
