"""The recurrence of one CfC layer: a time loop with a custom backward.

Forward, step t, for a layer without backbone:

    z[t] = u[t] + h[t - 1] @ R              one matrix product for all heads
    h[t] = mix(z[t])                        at steps that a mask skips, h[t - 1]

Backward keeps the states only. The z and the local derivatives D = dh[t] / dz[t] of the whole
sequence are computed at once; the reverse loop carries only dh:

    dz[t]     = D[t] * dh[t]
    dh[t - 1] = dout[t - 1] + dz[t] @ R.T

and every weight's gradient is one product over all steps. The layers of a backbone are between
u[t] + h[t - 1] @ R and the heads; each has a matrix product of its own in both loops.

Axes: B batch, T steps, N neurons, D heads, U backbone units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from ncp_agents.keras.activations import Activation
from ncp_agents.keras.backward import first_order
from ncp_agents.keras.inputs import split_sizes
from ncp_agents.keras.ops import Tensor, ops, tree
from ncp_agents.layers.checks import Mode

Arrays = dict[str, Any]


class LoopOptions(NamedTuple):
    """What the loop depends on besides tensors."""

    mode: Mode
    activation: Activation
    """Of the backbone."""
    depth: int
    """Backbone layers."""
    unroll: bool


def recurrence(options: LoopOptions, arrays: Arrays) -> Tensor:
    """Every state of a layer, (T, B, N).

    arrays: `u` (T, B, U or D N), `h` (B, N), `recurrent` (N, U or D N); for each backbone layer k
    `kernel_k` and `bias_k` of what follows it, and `keep_k` (T, B, U), its dropout, if any; `w_tau`
    and `A` (1, N) in pure mode; `timespans` (T, B, N) if they vary; `mask` (T, B, N) of 1.0 where a
    step counts for a neuron, if any.

    Heads are [f1, f2, gate / 2], or [f1, f2, a / 2, b / 2] with timespans, or [f1] in pure mode:
    sigmoid(gate) = 1 / 2 + tanh(gate / 2) / 2, so one tanh serves all.
    """
    names = list(arrays)

    @ops.custom_gradient
    def run(*values: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        given = dict(zip(names, values, strict=True))
        states = _forward(options, given)
        # Not the output itself: in torch that would tie the graph to itself, never to be freed.
        kept = ops.stop_gradient(states)

        def gradient(*received: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            dout = received[0] if upstream is None else upstream
            found = _backward(options, given, kept, dout)
            return first_order([found.get(name, ops.zeros_like(given[name])) for name in names])

        return states, gradient

    return run(*arrays.values())


def time_loop(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Arrays,
    unroll: bool = False,
    reverse: bool = False,
    features: Literal[-1, -2] = -1,
) -> tuple[Any, Any]:
    """Run step(carry, {name: x[t]}) → carry, y for each t; return the last carry and all y (T, …).

    Args:
        step: its y is shaped like its carry.
        carry: the first one.
        xs: arrays (T, …) of equal shapes except in the axis `features`.
        unroll: whether the loop is unrolled.
        reverse: whether t runs from the last to the first.
        features: see `xs`.
    """
    if unroll:
        flipped = {name: ops.flip(x, axis=0) for name, x in xs.items()} if reverse else xs
        ys = []
        for now in zip(*(ops.unstack(x, axis=0) for x in flipped.values()), strict=True):
            carry, y = step(carry, dict(zip(xs, now, strict=True)))
            ys.append(y)
        return carry, tree.map_structure(lambda *y: ops.stack(y[::-1] if reverse else y), *ys)
    if all(x.shape[0] is not None for x in xs.values()):
        return ops.scan(step, carry, xs, reverse=reverse)
    # Where T is not known, TensorFlow's `scan` takes but one array.
    widths = [x.shape[features] for x in xs.values()]

    def parted(carry: Any, now: Tensor) -> tuple[Any, Any]:
        return step(carry, dict(zip(xs, split_sizes(now, widths, features), strict=True)))

    joined = ops.concatenate(list(xs.values()), axis=features)
    return ops.scan(parted, carry, joined, reverse=reverse)


def _forward(options: LoopOptions, given: Arrays) -> Tensor:
    per_step = [f"keep_{k}" for k in range(options.depth)] + ["u", "timespans", "mask"]

    def step(h: Tensor, now: Arrays) -> tuple[Tensor, Tensor]:
        z, _ = _heads(options, given, now, now["u"] + ops.matmul(h, given["recurrent"]))
        new = _mix(options, given, z, now.get("timespans"))
        if "mask" in now:
            new = ops.where(now["mask"] > 0, new, h)
        return new, new

    xs = {name: given[name] for name in per_step if name in given}
    return time_loop(step, given["h"], xs, options.unroll)[1]


def _backward(options: LoopOptions, given: Arrays, states: Tensor, dout: Tensor) -> Arrays:
    """The gradient of each array that has one."""
    units = states.shape[-1]
    mask, timespans = given.get("mask"), given.get("timespans")
    before = ops.concatenate([given["h"][None], states[:-1]], axis=0)
    first = given["u"] + ops.matmul(before, given["recurrent"])
    z, hidden = _heads(options, given, given, first)
    local = _derivatives(options, given, z, timespans)
    heads = local.shape[-1] // units
    if mask is not None:
        local = local * ops.concatenate([mask] * heads, axis=-1)
    kernels = [given["recurrent"]] + [given[f"kernel_{k}"] for k in range(options.depth)]
    transposed = [ops.transpose(kernel) for kernel in kernels]

    def through(dh: Tensor, now: Arrays) -> list[Tensor]:
        """dh (…, N) → dz of each product, the heads' first."""
        dzs = [now["local"] * ops.concatenate([dh] * heads, axis=-1)]
        for k in reversed(range(options.depth)):
            dzs.append(ops.matmul(dzs[-1], transposed[k + 1]) * now[f"slope_{k}"])
        return dzs

    def step(dh: Tensor, now: Arrays) -> tuple[Tensor, Tensor]:
        dh = dh + now["dout"]
        carried = ops.matmul(through(dh, now)[-1], transposed[0])
        if "mask" in now:
            carried = carried + dh * (1 - now["mask"])
        return carried, dh

    xs = {"local": local, "dout": dout} | {f"slope_{k}": s for k, (_, s) in enumerate(hidden)}
    if mask is not None:
        xs["mask"] = mask
    dstate, dh = time_loop(step, ops.zeros_like(given["h"]), xs, options.unroll, reverse=True)

    dz_heads, *dz_hidden = through(dh, xs)
    dzs = [*reversed(dz_hidden), dz_heads]
    found = {"u": dzs[0], "h": dstate, "recurrent": _product(before, dzs[0])}
    for k, (active, _) in enumerate(hidden):
        found[f"kernel_{k}"] = _product(active, dzs[k + 1])
        found[f"bias_{k}"] = ops.sum(dzs[k + 1], axis=(0, 1))
    if mask is not None:
        dh = dh * mask
    if options.mode == "pure":
        decay, rate = _decay(given, z, timespans)
        of_rate = dh * given["A"] * decay * z
        found["A"] = ops.sum(dh * (1 - decay * z), axis=(0, 1))[None]
        dt = 1.0 if timespans is None else timespans
        found["w_tau"] = ops.sum(of_rate * dt, axis=(0, 1))[None]
        if timespans is not None:
            found["timespans"] = of_rate * rate
    elif timespans is not None:
        found["timespans"] = dz_heads[..., 3 * units :] * z[..., 2 * units : 3 * units]
    return found


def _heads(
    options: LoopOptions, given: Arrays, now: Arrays, z: Tensor
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """First product (…, U or D N) → the heads (…, D N) and the backbone's activations.

    Each layer of the backbone has its activations and their derivative.
    """
    hidden = []
    for k in range(options.depth):
        active = options.activation.function(z)
        slope = options.activation.derivative(z, active)
        if f"keep_{k}" in now:
            active, slope = active * now[f"keep_{k}"], slope * now[f"keep_{k}"]
        hidden.append((active, slope))
        z = ops.matmul(active, given[f"kernel_{k}"]) + given[f"bias_{k}"]
    return z, hidden


def _gated(z: Tensor, timespans: Tensor | None) -> list[Tensor]:
    """tanh(f1), tanh(f2), sigmoid(gate)."""
    if timespans is not None:
        f1, f2, a, b = ops.split(z, 4, axis=-1)
        z = ops.concatenate([f1, f2, a * timespans + b], axis=-1)
    f1, f2, gate = ops.split(ops.tanh(z), 3, axis=-1)
    return [f1, f2, 0.5 + 0.5 * gate]


def _decay(given: Arrays, f: Tensor, timespans: Tensor | None) -> tuple[Tensor, Tensor]:
    """exp(-dt * rate) and the rate |w_tau| + |f|."""
    rate = given["w_tau"] + ops.abs(f)
    return ops.exp(-rate if timespans is None else -timespans * rate), rate


def _mix(options: LoopOptions, given: Arrays, z: Tensor, timespans: Tensor | None) -> Tensor:
    """Heads (…, D N) → h (…, N)."""
    if options.mode == "pure":
        decay, _ = _decay(given, z, timespans)
        return given["A"] - given["A"] * decay * z
    f1, f2, gate = _gated(z, timespans)
    return f1 + gate * (f2 if options.mode == "no_gate" else f2 - f1)


def _derivatives(
    options: LoopOptions, given: Arrays, z: Tensor, timespans: Tensor | None
) -> Tensor:
    """dh / dz of each head, (…, D N)."""
    if options.mode == "pure":
        decay, _ = _decay(given, z, timespans)
        size = ops.abs(z) if timespans is None else timespans * ops.abs(z)
        return -given["A"] * decay * (1 - size)
    f1, f2, gate = _gated(z, timespans)
    no_gate = options.mode == "no_gate"
    first = 1 - f1 * f1
    if not no_gate:
        first = first * (1 - gate)
    slope = 2 * gate * (1 - gate) * (f2 if no_gate else f2 - f1)
    heads = [first, gate * (1 - f2 * f2), slope]
    if timespans is not None:
        heads.insert(2, slope * timespans)
    return ops.concatenate(heads, axis=-1)


def _product(x: Tensor, dz: Tensor) -> Tensor:
    """x (T, B, K), dz (T, B, L) → the gradient (K, L) of the kernel between them."""
    rows = [ops.reshape(values, (-1, values.shape[-1])) for values in (x, dz)]
    return ops.matmul(ops.transpose(rows[0]), rows[1])
