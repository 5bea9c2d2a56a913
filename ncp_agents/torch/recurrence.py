"""The recurrence at the heart of the scan: a time loop with a hand-written backward.

Forward, wave k (`p` is the scan's state, see `fused.py`):

    z[k] = u[k] + p[k] @ R                  one matrix product for all heads and layers
    p[k + 1] = mix(sigmoid(z[k]))           one sigmoid, one interpolation

Backward keeps `p` and the sigmoids. The local derivatives D = dp[k + 1] / dz[k] of the whole
sequence are computed at once; the reverse loop carries only dp:

    dz[k] = D[k] * dp[k + 1]
    dp[k] = dout[k] + dz[k] @ R.T

and every weight's gradient is one flat product over all waves: dR = p.T @ dz.

Axes: B batch, K waves, N neurons, D heads, U backbone units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ncp_agents.layers.checks import Mode
from ncp_agents.torch.activations import Activation
from ncp_agents.torch.autograd import written_by_hand
from ncp_agents.torch.fused_weights import layers


class Plan(NamedTuple):
    """What the loop needs to know besides tensors."""

    mode: Mode
    layer_sizes: list[int]
    timespan: float | None
    """The constant one in steps, or None where a tensor gives them."""
    activation: Activation
    """Of the backbone."""
    waves: int
    reset_waves: frozenset[int]
    """The waves before which any neuron of any row is reset."""

    @property
    def layers(self) -> list[slice]:
        return layers(self.layer_sizes)

    @property
    def idle(self) -> dict[int, list[slice]]:
        """The first and last waves, with the layers that wait there for their first step, or have
        done their last.
        """
        late = len(self.layer_sizes) - 1
        steps = self.waves - late
        edges = {*range(late), *range(steps, self.waves)}
        return {
            wave: [where for i, where in enumerate(self.layers) if not 0 <= wave - i < steps]
            for wave in sorted(edges)
        }

    @property
    def forgotten(self) -> float:
        """H = 0 in the scan's variable."""
        return 0.0 if self.mode == "pure" else 0.5


class Gated:
    """Modes "default" and "no_gate". Heads [f1, f2, gate], or [a, f1, f2, b] with timespans.

    default: p = s1 + g (s2 - s1); no_gate: p = s1 + g (s2 - 1/2), with s = sigmoid of the head.
    """

    def __init__(self, z: Tensor, plan: Plan, timespans: Tensor | None, units: int) -> None:
        self.z, self.timespans, self.no_gate = z, timespans, plan.mode == "no_gate"
        heads = z.unflatten(-1, (-1, units))
        self.a = heads[..., 0, :] if timespans is not None else None
        self.s1, self.s2, self.gate = heads[..., -3:, :].unbind(-2)

    def steps(self, p: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """The views of every wave, made once: indexing costs as much as a small operation."""
        squashed = self.z[..., self.z.shape[-1] - 3 * self.s1.shape[-1] :]
        views = [part.unbind(0) for part in (squashed, self.s1, self.s2, self.gate)]
        if self.a is not None and self.timespans is not None:
            views += [self.a.unbind(0), self.timespans.unbind(0)]
        return list(zip(p[1:], *views, strict=True))

    def step(
        self,
        p: Tensor,
        squashed: Tensor,
        s1: Tensor,
        s2: Tensor,
        gate: Tensor,
        a: Tensor | None = None,
        timespan: Tensor | None = None,
    ) -> None:
        if a is not None and timespan is not None:
            gate.addcmul_(a, timespan)
        squashed.sigmoid_()
        if self.no_gate:
            torch.addcmul(s1, gate, s2 - 0.5, out=p)
        else:
            torch.lerp(s1, s2, gate, out=p)

    def derivatives(self) -> Tensor:
        """dp[k + 1] / dz[k], (K, B, D, N)."""
        s1, s2, gate = self.s1, self.s2, self.gate
        first = s1 * (1 - s1)
        if not self.no_gate:
            first = first * (1 - gate)
        second = gate * s2 * (1 - s2)
        slope = gate * (1 - gate) * (s2 - (0.5 if self.no_gate else s1))
        if self.timespans is None:
            return torch.stack([first, second, slope], -2)
        return torch.stack([slope * self.timespans, first, second, slope], -2)

    def gradients(self, dp: Tensor, dz: Tensor) -> tuple[Tensor | None, None, None]:
        """Of timespans (K, B, N), |w_tau| and A."""
        return (None if self.a is None else dz[..., -1, :] * self.a), None, None


class Pure:
    """Mode "pure": h' = A - A * e * f with e = exp(-dt (|w_tau| + |f|)). One head [f]."""

    def __init__(
        self, z: Tensor, plan: Plan, timespans: Tensor | None, w_tau: Tensor, amplitude: Tensor
    ) -> None:
        self.f, self.w_tau, self.amplitude = z, w_tau, amplitude
        given = plan.timespan if timespans is None else timespans
        assert given is not None  # the plan has one, or the tensor does
        self.timespans: Tensor | float = given

    def steps(self, p: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        if isinstance(self.timespans, Tensor):
            return list(zip(p[1:], self.f.unbind(0), self.timespans.unbind(0), strict=True))
        return list(zip(p[1:], self.f.unbind(0), strict=True))

    def step(self, p: Tensor, f: Tensor, timespan: Tensor | float | None = None) -> None:
        timespan = self.timespans if timespan is None else timespan
        decay = torch.exp(-timespan * (self.w_tau + f.abs()))
        torch.addcmul(self.amplitude, self.amplitude * decay, f, value=-1, out=p)

    def derivatives(self) -> Tensor:
        decay = torch.exp(-self.timespans * (self.w_tau + self.f.abs()))
        self.decay = decay
        return (-self.amplitude * decay * (1 - self.timespans * self.f.abs())).unsqueeze(-2)

    def gradients(self, dp: Tensor, dz: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        relaxed = self.decay * self.f
        of_rate = dp * self.amplitude * relaxed
        of_timespans = None
        if isinstance(self.timespans, Tensor):
            of_timespans = of_rate * (self.w_tau + self.f.abs())
        return (
            of_timespans,
            (of_rate * self.timespans).sum((0, 1)),
            (dp * (1 - relaxed)).sum((0, 1)),
        )


class Recurrence(torch.autograd.Function):
    """u (K, B, D N or U), p0 (B, N), R (N, D N or U), timespans (K, B, N) or None, resets
    (K, B, N) bool or None, |w_tau| (N,) and A (N,) in pure mode, then for each backbone layer the
    weight and bias that follow it → p after every wave, (K, B, N).
    """

    @staticmethod
    def forward(
        ctx,
        plan: Plan,
        u: Tensor,
        p0: Tensor,
        recurrent: Tensor,
        timespans: Tensor | None,
        resets: Tensor | None,
        w_tau: Tensor | None,
        amplitude: Tensor | None,
        *hidden: Tensor,
    ) -> Tensor:
        waves, batch, columns = u.shape
        states = p0.new_empty(waves + 1, batch, p0.shape[1])
        states[0] = p0
        # Pre-activations of the first product and, with a backbone, of those that follow it.
        z = [p0.new_empty(waves, batch, n) for n in (columns, *(b.shape[0] for b in hidden[1::2]))]
        active = [torch.empty_like(layer) for layer in z[:-1]]
        mixing = _mixing(plan, z[-1], timespans, w_tau, amplitude, p0.shape[1])

        own, across = _split(recurrent, plan) if resets is not None else (recurrent, None)
        p, pre = states.unbind(0), [layer.unbind(0) for layer in z]
        followed = [
            (layer.unbind(0), out.unbind(0), weight, bias, after.unbind(0))
            for layer, out, weight, bias, after in zip(
                z[:-1], active, hidden[::2], hidden[1::2], z[1:], strict=True
            )
        ]
        idle = plan.idle
        steps = mixing.steps(p)
        addmm, step, first = torch.addmm, mixing.step, pre[0]
        for k, drive in enumerate(u.unbind(0)):
            if k in plan.reset_waves and resets is not None:
                kept = p[k].masked_fill(resets[k], plan.forgotten)
                if across is not None:
                    drive = addmm(drive, p[k], across)
                addmm(drive, kept, own, out=first[k])
            else:
                addmm(drive, p[k], recurrent, out=first[k])
            for before, out, weight, bias, after in followed:
                out[k].copy_(plan.activation.phi(before[k]))
                addmm(bias, out[k], weight, out=after[k])
            step(*steps[k])
            if k in idle:
                for where in idle[k]:
                    p[k + 1][:, where] = p[k][:, where]

        ctx.plan = plan
        ctx.save_for_backward(
            states, recurrent, timespans, resets, w_tau, amplitude, *hidden, *z, *active
        )
        return states[1:]

    @staticmethod
    @written_by_hand
    def backward(ctx, *grad_outputs: Tensor):
        plan: Plan = ctx.plan
        states, recurrent, timespans, resets, w_tau, amplitude, *rest = ctx.saved_tensors
        depth = (len(rest) - 1) // 4
        hidden, z, active = (
            rest[: 2 * depth],
            rest[2 * depth : 3 * depth + 1],
            rest[3 * depth + 1 :],
        )
        (dout,) = grad_outputs
        waves, _, units = dout.shape

        mixing = _mixing(plan, z[-1], timespans, w_tau, amplitude, units)
        local = mixing.derivatives()
        idle = plan.idle
        for k, waiting in idle.items():
            for where in waiting:
                local[k, ..., where] = 0.0
        slopes = [
            plan.activation.derivative(before, out).unbind(0)
            for before, out in zip(z[:-1], active, strict=True)
        ]
        dz = [torch.empty_like(layer) for layer in z]
        dp = torch.empty_like(states)
        dp[1:] = dout
        dp[0] = 0.0

        own, across = _split(recurrent, plan) if resets is not None else (recurrent, None)
        towards_state = recurrent.T
        transposed = [weight.T for weight in hidden[::2]]
        carried, locals_ = dp.unbind(0), local.unbind(0)
        carried_to_heads = dp.unsqueeze(-2).unbind(0)
        dheads = dz[-1].unflatten(-1, (-1, units)).unbind(0)
        dlayers = [layer.unbind(0) for layer in dz]
        for k in range(waves - 1, -1, -1):
            torch.mul(locals_[k], carried_to_heads[k + 1], out=dheads[k])
            for i in range(depth - 1, -1, -1):
                torch.mm(dlayers[i + 1][k], transposed[i], out=dlayers[i][k])
                dlayers[i][k].mul_(slopes[i][k])
            if k in plan.reset_waves and resets is not None:
                back = dlayers[0][k] @ own.T
                carried[k].add_(back.masked_fill_(resets[k], 0.0))
                if across is not None:
                    carried[k].addmm_(dlayers[0][k], across.T)
            else:
                carried[k].addmm_(dlayers[0][k], towards_state)
            for where in idle.get(k, ()):
                carried[k][:, where] += carried[k + 1][:, where]
                carried[k + 1][:, where] = 0.0  # a held state owes nothing to its parameters

        drecurrent = states[:-1].flatten(0, 1).T @ dz[0].flatten(0, 1)
        if resets is not None:
            drecurrent += _reset_correction(plan, states, resets, dz[0])
        dhidden: list[Tensor | None] = []
        for i in range(depth):
            flat = dz[i + 1].flatten(0, 1)
            dhidden += [active[i].flatten(0, 1).T @ flat, flat.sum(0)]
        dtimespans, dw_tau, damplitude = mixing.gradients(dp[1:], dz[-1].unflatten(-1, (-1, units)))
        return (
            None,
            dz[0],
            dp[0],
            drecurrent,
            dtimespans,
            None,
            dw_tau,
            damplitude,
            *dhidden,
        )


def _mixing(
    plan: Plan,
    z: Tensor,
    timespans: Tensor | None,
    w_tau: Tensor | None,
    amplitude: Tensor | None,
    units: int,
) -> Gated | Pure:
    if w_tau is not None and amplitude is not None:
        return Pure(z, plan, timespans, w_tau, amplitude)
    return Gated(z, plan, timespans, units)


def _split(recurrent: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """R = own + across: from a layer to itself, which a reset cuts, and to the layer after it,
    which belongs to the same step and is not cut. One layer: own only.
    """
    if len(plan.layer_sizes) == 1:
        return recurrent, None
    own = torch.zeros_like(recurrent)
    units = sum(plan.layer_sizes)
    by_head, from_head = (m.unflatten(-1, (-1, units)) for m in (own, recurrent))
    for where in plan.layers:
        by_head[where, :, where] = from_head[where, :, where]
    return own, recurrent - own


def _reset_correction(plan: Plan, states: Tensor, resets: Tensor, dz: Tensor) -> Tensor:
    """What dR = p.T @ dz gets wrong in waves where layers saw a reset state of their own, not p."""
    waves = sorted(plan.reset_waves)
    change = (plan.forgotten - states[waves]) * resets[waves]
    correction = change.flatten(0, 1).T @ dz[waves].flatten(0, 1)
    return _split(correction, plan)[0]
