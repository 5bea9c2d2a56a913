"""The only time loop of the layers: a whole sequence in, the states of all neurons out.

What makes it fast, each point exact up to float rounding:

1. The inputs' part is computed for all steps before the loop: for CfC one matrix product, for
   LTC the sensory synapses.
2. The layers of a wired CfC feed forward only, so each runs over the whole sequence before the
   next. Not with a memory cell, which mixes the whole state in every step.
3. The heads of a CfC are one matrix product; an LTC computes only synapses that exist.
4. What follows a product is compiled into one kernel (`mx.compile`).

Axes: B batch, T steps, I inputs, N neurons.
"""

from __future__ import annotations

import mlx.core as mx

from ncp_agents.mlx.cfc_cell import CfCCell, FusedCfC
from ncp_agents.mlx.ltc_cell import LTCCell, Membrane
from ncp_agents.mlx.memory_cell import MemoryCell
from ncp_agents.mlx.wired_cfc_cell import FusedChain, WiredCfCCell


def scan(
    cell: CfCCell | WiredCfCCell | LTCCell,
    memory: MemoryCell | None,
    x: mx.array,
    h: mx.array,
    c: mx.array | None,
    timespans: float | mx.array,
    resets: mx.array | None,
) -> tuple[mx.array, mx.array, mx.array | None]:
    """x (T, B, I), h (B, N) → states (T, B, N), final h (B, N), final c or None.

    c is (B, N) with memory, timespans a float or (T, B), resets (T, B) bool or None.
    """
    varying = isinstance(timespans, mx.array)
    circuit = cell.fuse(None if varying else timespans)
    if varying:
        timespans = timespans[..., None]
    keep = None if resets is None else mx.logical_not(resets)[..., None]
    if isinstance(circuit, FusedChain) and memory is None:
        states, signal = [], x
        for layer, start in zip(circuit.layers, mx.split(h, circuit.ends, -1), strict=True):
            signal, _ = _loop(layer, None, signal, start, None, timespans, keep)
            states.append(signal)
        whole = mx.concatenate(states, -1)
        return whole, whole[-1], None
    states, c = _loop(circuit, memory, x, h, c, timespans, keep)
    return states, states[-1], c


def _loop(
    circuit: FusedCfC | FusedChain | Membrane,
    memory: MemoryCell | None,
    x: mx.array,
    h: mx.array,
    c: mx.array | None,
    timespans: float | mx.array,
    keep: mx.array | None,
) -> tuple[mx.array, mx.array | None]:
    """As `scan`, → states (T, B, N), final c.

    timespans is a float or (T, B, 1), keep (T, B, 1) is False where the state is reset.
    """
    projected = circuit.project(x)
    of_memory = None if memory is None else memory.input_map(x)
    states = []
    for t in range(len(x)):
        if keep is not None:
            h = mx.where(keep[t], h, 0.0)
            c = None if c is None else mx.where(keep[t], c, 0.0)
        if memory is not None and of_memory is not None:
            h, c = memory(of_memory[t], h, c)
        h = circuit.step(
            projected[t], h, timespans[t] if isinstance(timespans, mx.array) else timespans
        )
        states.append(h)
    return mx.stack(states), c
