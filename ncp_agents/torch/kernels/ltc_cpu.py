"""LTC neurons over a sequence on the CPU, in C: `ltc.c` as a differentiable function.

Axes: B batch, T steps, I inputs, N neurons, U unfolds, S synapses.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_void_p
from typing import Any

import torch
from torch import Tensor

from ncp_agents.torch.autograd import written_by_hand
from ncp_agents.torch.kernels.arrays import batch_first, in_order_of, new_like, ordered
from ncp_agents.torch.kernels.library import address, library, parallel_rows
from ncp_agents.torch.kernels.pipeline import KernelCall
from ncp_agents.torch.ltc_cell import Membrane, Synapses

STEPS_OF_A_SIGMOID = 16  # multiplications that take as long


class _Synapses(ctypes.Structure):
    """`Synapses` of ltc.c."""

    _fields_ = (
        ("count", c_int32),
        ("source", c_void_p),
        ("first", c_void_p),
        ("slope", c_void_p),
        ("offset", c_void_p),
        ("weight", c_void_p),
        ("pull", c_void_p),
    )


class _Ltc(ctypes.Structure):
    """`Ltc` of ltc.c."""

    _fields_ = (
        ("steps", c_int32),
        ("inputs", c_int32),
        ("neurons", c_int32),
        ("unfolds", c_int32),
        ("rows", c_int32),
        ("time_stride", c_int32),
        ("row_stride", c_int32),
        ("epsilon", c_float),
        ("timespan", c_float),
        ("sensory", _Synapses),
        ("internal", _Synapses),
        ("cm", c_void_p),
        ("leak", c_void_p),
        ("rest", c_void_p),
        ("x", c_void_p),
        ("start", c_void_p),
        ("timespans", c_void_p),
        ("resets", c_void_p),
        ("states", c_void_p),
        ("unfolded", c_void_p),
        ("divisors", c_void_p),
        ("dstates", c_void_p),
        ("dx", c_void_p),
        ("dstart", c_void_p),
        ("dtimespans", c_void_p),
        ("dsensory", c_void_p),
        ("dinternal", c_void_p),
        ("dneurons", c_void_p),
    )


def fits(membrane: Membrane, v: Tensor) -> bool:
    return library() is not None


def run(
    membrane: Membrane,
    x: Tensor,
    v: Tensor,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> Tensor:
    """x (T, B, I), v (B, N), timespans a float or (T, B), resets (T, B) bool or None
    → v after every step, (T, B, N).
    """
    varying = timespans.contiguous() if isinstance(timespans, Tensor) else None
    call = _Call(membrane, timespan=0.0 if isinstance(timespans, Tensor) else timespans)
    differentiable = ordered(x.to(v.dtype)), v.contiguous(), varying, *_parameters(membrane)
    resets = None if resets is None else resets.contiguous()
    if torch.is_grad_enabled():
        states = LtcRecurrence.apply(call, resets, *differentiable)
        assert isinstance(states, Tensor)
        return states
    return call.forward(resets, *differentiable, keep=False)[0]


def link(membrane: Membrane, x: Tensor, states: Tensor) -> KernelCall:
    """One step of x (B, I) to states (B, N); who runs it sets `start` and `resets`."""
    call, parameters = _Call(membrane, timespan=1.0), _parameters(membrane)
    argument = call.argument(None, x[None], states, None, *parameters)
    argument.states = address(states)
    return KernelCall("ltc_forward", argument, (call, parameters, x, states))


class _Call:
    """What the kernel needs to know besides differentiable tensors."""

    def __init__(self, membrane: Membrane, timespan: float) -> None:
        self.unfolds, self.epsilon = membrane.unfolds, membrane.epsilon
        self.timespan = timespan
        synapses = membrane.sensory, membrane.internal
        self.indices = [index for one in synapses for index in _sorted_indices(one)]

    def argument(
        self,
        resets: Tensor | None,
        x: Tensor,
        v: Tensor,
        timespans: Tensor | None,
        neurons: Tensor,
        sensory: Tensor,
        internal: Tensor,
    ) -> _Ltc:
        """The kernel's argument. It points into these tensors, all of them contiguous."""
        steps, rows, inputs = x.shape
        return _Ltc(
            steps=steps,
            inputs=inputs,
            neurons=v.shape[1],
            unfolds=self.unfolds,
            rows=rows,
            time_stride=1 if batch_first(x) else rows,
            row_stride=steps if batch_first(x) else 1,
            epsilon=self.epsilon,
            timespan=self.timespan,
            sensory=_synapses(sensory, *self.indices[:2]),
            internal=_synapses(internal, *self.indices[2:]),
            cm=address(neurons[0]),
            leak=address(neurons[1]),
            rest=address(neurons[2]),
            x=address(x),
            start=address(v),
            timespans=address(timespans),
            resets=address(resets),
        )

    def run(self, name: str, argument: _Ltc) -> None:
        sigmoids = argument.sensory.count + argument.unfolds * argument.internal.count
        operations = float(argument.steps) * argument.rows * sigmoids * STEPS_OF_A_SIGMOID
        parallel_rows(name, argument, argument.rows, operations)

    def forward(
        self, resets: Tensor | None, x: Tensor, v: Tensor, *rest: Any, keep: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """→ v after every step (T, B, N) and, to keep for the backward, v before each unfold and
        what it divided by, (T, U, N, B) each.
        """
        argument = self.argument(resets, x, v, *rest)
        rows, neurons = v.shape
        states = new_like(x, neurons)
        kept = [
            x.new_empty(x.shape[0], self.unfolds, neurons, rows) for _ in range(2 if keep else 0)
        ]
        argument.states = address(states)
        if keep:
            argument.unfolded, argument.divisors = map(address, kept)
        self.run("ltc_forward", argument)
        return states, kept


class LtcRecurrence(torch.autograd.Function):
    """x (T, B, I), v (B, N), timespans (T, B) or None, [cm, leak, rest] (3, N), then
    [slope, offset, weight, pull] (4, S) of the sensory and the internal synapses
    → v after every step, (T, B, N).
    """

    @staticmethod
    def forward(ctx, call: _Call, resets: Tensor | None, *tensors: Any) -> Tensor:
        states, kept = call.forward(resets, *tensors, keep=True)
        ctx.call = call
        ctx.save_for_backward(states, *kept, resets, *tensors)
        return states

    @staticmethod
    @written_by_hand
    def backward(ctx, *grad_outputs: Tensor):
        states, unfolded, divisors, *inputs = ctx.saved_tensors
        _, x, v, timespans, neurons, sensory, internal = inputs
        argument = ctx.call.argument(*inputs)
        argument.states, argument.unfolded, argument.divisors = map(
            address, (states, unfolded, divisors)
        )
        dstates = in_order_of(states, grad_outputs[0])
        dx = torch.empty_like(x) if ctx.needs_input_grad[2] else None
        dv = torch.empty_like(v)
        dtimespans = None if timespans is None else torch.empty_like(timespans)
        parts = torch.get_num_threads()
        dparameters = [t.new_zeros(parts, *t.shape) for t in (neurons, sensory, internal)]
        argument.dstates, argument.dx, argument.dstart, argument.dtimespans = map(
            address, (dstates, dx, dv, dtimespans)
        )
        argument.dneurons, argument.dsensory, argument.dinternal = map(address, dparameters)
        ctx.call.run("ltc_backward", argument)
        return None, None, dx, dv, dtimespans, *(d.sum(0) for d in dparameters)


def _parameters(membrane: Membrane) -> tuple[Tensor, Tensor, Tensor]:
    """[cm, leak, rest] (3, N), then [slope, offset, weight, pull] (4, S) of the sensory and the
    internal synapses.
    """
    neurons = torch.stack([membrane.cm, membrane.leak, membrane.rest])
    return neurons, _stacked(membrane.sensory), _stacked(membrane.internal)


def _stacked(synapses: Synapses) -> Tensor:
    return torch.stack([synapses.slope, synapses.offset, synapses.weight, synapses.pull])


def _sorted_indices(synapses: Synapses) -> tuple[Tensor, Tensor]:
    """The sources (S,), and where each neuron's synapses begin (N + 1,), both int32."""
    neurons = torch.arange(synapses.neurons + 1)
    return synapses.source.int(), torch.searchsorted(synapses.target, neurons, out_int32=True)


def _synapses(values: Tensor, source: Tensor, first: Tensor) -> _Synapses:
    slope, offset, weight, pull = map(address, values)
    return _Synapses(
        count=values.shape[1],
        source=address(source),
        first=address(first),
        slope=slope,
        offset=offset,
        weight=weight,
        pull=pull,
    )
