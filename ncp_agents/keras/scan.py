"""Whole sequences through a cell: what can be done for all steps at once is done before the loop.

A CfC's input projection is one matrix product over all steps, and a wired CfC is a chain of
independent CfCs, each run over the whole sequence before the next (`recurrence.py` holds the loop
and its hand-written backward). With mixed memory the whole state is mixed in every step, so there
the steps are taken one by one, by the cell itself.

Axes: B batch, T steps, I inputs, N neurons.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from ncp_agents.keras.cfc_cell import CfCCell, absolute
from ncp_agents.keras.ltc_cell import LTCCell
from ncp_agents.keras.ltc_recurrence import ltc_recurrence
from ncp_agents.keras.memory_cell import MixedMemoryRNN
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.recurrence import Arrays, Plan, recurrence, time_loop
from ncp_agents.keras.wired_cfc_cell import WiredCfCCell


class Sequence(NamedTuple):
    """What goes through a layer."""

    x: Tensor
    """(T, B, I)"""
    timespans: Tensor | None
    """(T, B, 1), None where all are 1"""
    mask: Tensor | None
    """(T, B, 1) of 1.0 where a step counts, else 0.0; None where all count"""
    training: bool
    unroll: bool

    def arrays(self) -> Arrays:
        """Timespans and mask, where there are."""
        named = {"timespans": self.timespans, "mask": self.mask}
        return {name: value for name, value in named.items() if value is not None}


def scan_cfc(cell: CfCCell | WiredCfCCell, sequence: Sequence, h: Tensor) -> Tensor:
    """States (T, B, N) from the state h (B, N)."""
    if isinstance(cell, CfCCell):
        return _scan_layer(cell, sequence, h)
    states = []
    for layer, own in zip(cell.cells, cell.split(h), strict=True):
        states.append(_scan_layer(layer, sequence, own))
        sequence = sequence._replace(x=states[-1])
    return ops.concatenate(states, axis=-1)


def _scan_layer(cell: CfCCell, sequence: Sequence, h: Tensor) -> Tensor:
    x = sequence.x
    linears = [(ops.copy(kernel), ops.copy(bias)) for kernel, bias in cell.backbone]
    linears.append(_fused_heads(cell, sequence.timespans is not None))
    (first, bias), following = linears[0], linears[1:]
    inputs = x.shape[-1]
    arrays = {
        "u": ops.matmul(x, first[:inputs]) + bias,
        "h": h,
        "recurrent": first[inputs:],
        **sequence.arrays(),
    }
    for k, (kernel, bias) in enumerate(following):
        arrays |= {f"kernel_{k}": kernel, f"bias_{k}": bias}
        if sequence.training and cell.backbone_dropout:
            ones = ops.ones((*ops.shape(x)[:2], cell.backbone_units), dtype=x.dtype)
            arrays[f"keep_{k}"] = keras.random.dropout(
                ones, cell.backbone_dropout, seed=cell.seed_generator
            )
    if cell.mode == "pure":
        arrays |= {"w_tau": absolute(cell.w_tau), "A": ops.copy(cell.A)}
    plan = Plan(cell.mode, cell.activation, len(following), sequence.unroll)
    return recurrence(plan, arrays)


def _fused_heads(cell: CfCCell, timespans_vary: bool) -> tuple[Tensor, Tensor]:
    """All heads as one kernel (inputs, D N) and bias. With timespans of 1, time_a and time_b are
    one head."""
    heads = list(cell.masked_heads().values())
    if cell.mode != "pure" and not timespans_vary:
        (a, a_bias), (b, b_bias) = heads[2:]
        heads[2:] = [(a + b, a_bias + b_bias)]
    kernels, biases = zip(*heads, strict=True)
    return ops.concatenate(kernels, axis=1), ops.concatenate(biases)


def scan_ltc(cell: LTCCell, sequence: Sequence, v: Tensor) -> Tensor:
    """Potentials (T, B, N) from the potentials v (B, N)."""
    x = sequence.x
    timespans = ops.ones_like(x[..., :1]) if sequence.timespans is None else sequence.timespans
    arrays = {"v": v, "x": cell.map_inputs(x), "dt": timespans / cell.ode_unfolds}
    if sequence.mask is not None:
        arrays["mask"] = sequence.mask
    return ltc_recurrence(cell, arrays, sequence.unroll)


def scan_mixed_memory(
    cell: MixedMemoryRNN, sequence: Sequence, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """States of the neurons and of the memory, (T, B, N) each."""

    def step(state: tuple[Tensor, Tensor], now: Arrays) -> tuple[Any, Any]:
        h, c = cell.remember(now["projected"], *state)
        inputs = (now["x"], now["timespans"]) if "timespans" in now else now["x"]
        _, (h,) = cell.rnn_cell(inputs, [h], training=sequence.training)
        if "mask" in now:
            h, c = (
                ops.where(now["mask"] > 0, new, old) for new, old in zip((h, c), state, strict=True)
            )
        return (h, c), (h, c)

    xs = {"x": sequence.x, "projected": cell.project(sequence.x), **sequence.arrays()}
    return time_loop(step, (h, c), xs, sequence.unroll)[1]
