"""Whole sequences through a cell: what can be done for all steps at once is done before the loop.

A CfC's input projection is one matrix product over all steps (`recurrence.py` holds the loop and
its custom backward). The layers of a wired CfC feed forward within a step, so they run in
skewed time: at wave k, layer 0 is at step k, layer 1 at step k - 1, layer 2 at step k - 2. All of
them read only what wave k - 1 left, so one block matrix product advances every layer, and a circuit
of L layers takes T + L - 1 waves. With mixed memory the whole state is mixed in every step, so
there the steps are taken one by one, by the cell itself.

Axes: B batch, T steps, L layers, I inputs, N neurons.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ncp_agents.keras.cfc_cell import CfCCell, absolute
from ncp_agents.keras.ltc_cell import LTCCell
from ncp_agents.keras.ltc_recurrence import ltc_recurrence
from ncp_agents.keras.memory_cell import MixedMemoryRNN
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.recurrence import Arrays, LoopOptions, recurrence, time_loop
from ncp_agents.keras.wired_cfc_cell import WiredCfCCell


class Sequence(NamedTuple):
    """The arguments of a layer's call, time-major."""

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
    if isinstance(cell, WiredCfCCell):
        return _scan_wired(cell, sequence, h)
    x = sequence.x
    linears = [(ops.copy(kernel), ops.copy(bias)) for kernel, bias in cell.backbone]
    varies = sequence.timespans is not None
    kernels, biases = zip(*_heads(cell, varies), strict=True)
    linears.append((ops.concatenate(kernels, axis=1), ops.concatenate(biases)))
    (first, bias), following = linears[0], linears[1:]
    inputs = x.shape[-1]
    arrays = {
        "u": ops.matmul(x, first[:inputs]) + bias,
        "h": h,
        "recurrent": first[inputs:],
        **{name: ops.repeat(v, cell.spec.units, axis=-1) for name, v in sequence.arrays().items()},
    }
    for k, (kernel, bias) in enumerate(following):
        arrays |= {f"kernel_{k}": kernel, f"bias_{k}": bias}
    arrays |= _dropout(cell, sequence)
    if cell.spec.mode == "pure":
        arrays |= {"w_tau": absolute(cell.w_tau), "A": ops.copy(cell.A)}
    return recurrence(
        LoopOptions(cell.spec.mode, cell.activation, len(following), sequence.unroll), arrays
    )


def _dropout(cell: Any, sequence: Sequence) -> Arrays:
    """Dropout masks `keep_<k>` (T, B, U) of each backbone layer, in training."""
    if not (sequence.training and isinstance(cell, CfCCell)):
        return {}
    masks = cell.dropout_masks(ops.shape(sequence.x)[:2], sequence.x.dtype)
    return {f"keep_{k}": mask for k, mask in enumerate(masks)}


def _heads(cell: CfCCell, timespans_vary: bool) -> list[tuple[Tensor, Tensor]]:
    """Kernel and bias of each head of the recurrence.

    With timespans of 1, time_a and time_b are one head.
    """
    heads = list(cell.masked_heads().values())
    if cell.spec.mode == "pure":
        return heads
    *values, (a, a_bias), (b, b_bias) = heads
    if timespans_vary:
        return [*values, (0.5 * a, 0.5 * a_bias), (0.5 * b, 0.5 * b_bias)]
    return [*values, (0.5 * (a + b), 0.5 * (a_bias + b_bias))]


def _scan_wired(cell: WiredCfCCell, sequence: Sequence, h: Tensor) -> Tensor:
    """As `scan_cfc`, in skewed time: wave k takes layer i through step k - i."""
    x, sizes, late = sequence.x, cell.layer_sizes, len(cell.layer_sizes) - 1
    heads = [_heads(layer, sequence.timespans is not None) for layer in cell.cells]

    inputs = x.shape[-1]
    recurrent, drives, biases = [], [], []
    for by_layer in zip(*heads, strict=True):
        (first, _), *_ = by_layer
        drive = ops.matmul(x, first[:inputs])
        drives.append(ops.pad(drive, ((0, late), (0, 0), (0, sum(sizes[1:])))))
        biases += [bias for _, bias in by_layer]
        blocks, above = [], 0  # rows are sources: the layer before and the layer itself
        for kernel, size in zip(
            [first[inputs:], *(k for k, _ in by_layer[1:])], sizes, strict=True
        ):
            below = sum(sizes) - above - kernel.shape[0]
            blocks.append(ops.pad(kernel, ((above, below), (0, 0))))
            above += kernel.shape[0] - size
        recurrent.append(ops.concatenate(blocks, axis=1))
    arrays = {
        "u": ops.concatenate(drives, axis=-1) + ops.concatenate(biases),
        "h": h,
        "recurrent": ops.concatenate(recurrent, axis=1),
    }
    if sequence.timespans is not None:
        arrays["timespans"] = _skew(sequence.timespans, sizes)
    if late or sequence.mask is not None:
        # Before its first step and after its last a layer waits.
        mask = ops.ones_like(x[..., :1]) if sequence.mask is None else sequence.mask
        arrays["mask"] = _skew(mask, sizes)
    if cell.spec.mode == "pure":
        arrays["w_tau"] = ops.concatenate([absolute(c.w_tau) for c in cell.cells], axis=1)
        arrays["A"] = ops.concatenate([c.A for c in cell.cells], axis=1)
    options = LoopOptions(cell.spec.mode, cell.cells[0].activation, 0, sequence.unroll)
    states = cell.split(recurrence(options, arrays))
    waves = [part[i : i - late or None] for i, part in enumerate(states)]
    return ops.concatenate(waves, axis=-1)


def _skew(values: Tensor, sizes: list[int]) -> Tensor:
    """(T, B, 1) → (T + L - 1, B, N), layer i delayed by i steps, with 0 where there are none."""
    late = len(sizes) - 1
    parts = [
        ops.repeat(ops.pad(values, ((i, late - i), (0, 0), (0, 0))), size, axis=-1)
        for i, size in enumerate(sizes)
    ]
    return ops.concatenate(parts, axis=-1)


def scan_ltc(cell: LTCCell, sequence: Sequence, v: Tensor) -> Tensor:
    """Potentials (T, B, N) from the potentials v (B, N)."""
    x = sequence.x
    timespans = ops.ones_like(x[..., :1]) if sequence.timespans is None else sequence.timespans
    arrays = {"v": v, "x": cell.map_inputs(x), "dt": timespans / cell.ode_unfolds}
    if sequence.mask is not None:
        arrays["mask"] = sequence.mask
    batch_last = {name: ops.swapaxes(values, -1, -2) for name, values in arrays.items()}
    return ops.swapaxes(ltc_recurrence(cell, batch_last, sequence.unroll), -1, -2)


def scan_mixed_memory(
    cell: MixedMemoryRNN, sequence: Sequence, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """States of the neurons and of the memory, (T, B, N) each."""
    inner, dropout = cell.rnn_cell, _dropout(cell.rnn_cell, sequence)  # sampled before the loop

    def step(state: tuple[Tensor, Tensor], now: Arrays) -> tuple[Any, Any]:
        h, c = cell.memory_step(now["projected"], *state)
        if dropout:
            h = inner.step(now["x"], h, now.get("timespans"), [now[name] for name in dropout])
        else:
            inputs = (now["x"], now["timespans"]) if "timespans" in now else now["x"]
            _, (h,) = inner(inputs, [h])
        if "mask" in now:
            h, c = (
                ops.where(now["mask"] > 0, new, old) for new, old in zip((h, c), state, strict=True)
            )
        return (h, c), (h, c)

    xs = {"x": sequence.x, "projected": cell.project(sequence.x), **sequence.arrays(), **dropout}
    return time_loop(step, (h, c), xs, sequence.unroll)[1]
