"""How fast each port takes a sequence forward and backward, beside ncps's port and the framework's
own LSTM.

    python scripts/benchmarks/ports.py                           # all, some 20 minutes
    python scripts/benchmarks/ports.py --only keras-tensorflow   # some of the ports

Milliseconds for one batch of B = 8 and of 64 sequences of T = 128 steps of I = 256 inputs, forward
and backward, the gradient of every weight. All are compiled: under TensorFlow by
`tf.function`, which is what Keras does by itself on a CPU, and again with `jit_compile=True` (XLA).
On torch Keras compiles nothing by itself, and torch.compile takes minutes for a loop of Python;
MLX's LSTM is not compiled either, ours is. Each layer runs in a process of its own, since a process
has one backend of Keras; a figure is the median.

Findings: large batches are bound by matrix products, of which both have nearly the same; at
B = 8 it is the number of operations in a step that counts. On XLA several plain sums over the same
sigmoids are as fast as any matrix product that makes it compute them once. A loop over several
arrays beats one over all of them joined, 54 to 78 ms on JAX (wired, B = 64). Neither keeping the
local derivatives from the forward loop nor sparing the masks of skewed time won anything. An LTC's
look-ups want the batch last: whole rows move then, and at B = 64 on TensorFlow the ratio to ncps
went from 0.9 to 3.6. Working out a step's unfolds all at once in its backward, from their kept
potentials, halves the operations and is a fifth slower at B = 64: such arrays leave the cache.

wired is CfC on AutoNCP(64, 16), dense is CfC(64) with its backbone of 128 units, ltc is LTC on
AutoNCP(64, 8). torch's layers are in `cells.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np
import tyro

STEPS, INPUTS, NEURONS = 128, 256, 64
LAYERS = ("lstm", "dense", "wired", "ltc")
WHOSE = ("ours", "ncps")

Step = Callable[[], None]
"""Forward and backward once, until the numbers are there."""


@dataclass(frozen=True)
class Port:
    """One row of the table of frameworks."""

    step: Callable[[str, str, int], Step]
    """(layer, whose, B) → a compiled step."""
    environment: dict[str, str]
    ncps: bool = False
    """Whether ncps has a port to compare with."""


def keras_layer(layer: str, whose: str) -> Any:
    import keras

    if layer == "lstm":
        return keras.layers.LSTM(NEURONS, return_sequences=True)
    name = "ncp_agents" if whose == "ours" else "ncps"
    package, wirings = map(import_module, (f"{name}.keras", f"{name}.wirings"))
    if layer == "ltc":
        return package.LTC(wirings.AutoNCP(NEURONS, 8), return_sequences=True)
    units = NEURONS if layer == "dense" else wirings.AutoNCP(NEURONS, 16)
    return package.CfC(units, return_sequences=True)


def tensorflow_step(layer: str, whose: str, batch: int, jit_compile: bool = False) -> Step:
    import tensorflow as tf

    ours = keras_layer(layer, whose)
    x = tf.constant(_inputs(batch))
    ours(x[:1, :2])

    @tf.function(jit_compile=jit_compile)
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(ours(x) ** 2)
        return tape.gradient(loss, ours.trainable_variables)

    return lambda: gradients()[0].numpy()


def jax_step(layer: str, whose: str, batch: int) -> Step:
    import jax

    ours = keras_layer(layer, whose)
    x = jax.numpy.asarray(_inputs(batch))
    ours(x[:1, :2])
    values = [variable.value for variable in ours.trainable_variables]
    rest = [variable.value for variable in ours.non_trainable_variables]

    @jax.jit
    def gradients(values: Any) -> Any:
        return jax.grad(lambda v: (ours.stateless_call(v, rest, x)[0] ** 2).mean())(values)

    return lambda: jax.block_until_ready(gradients(values))


def torch_step(layer: str, whose: str, batch: int) -> Step:
    import torch

    ours = keras_layer(layer, whose)
    x = torch.from_numpy(_inputs(batch))
    ours(x[:1, :2])

    def gradients() -> None:
        ours.zero_grad()
        ours(x).square().mean().backward()

    return gradients


def mlx_step(layer: str, whose: str, batch: int) -> Step:
    import mlx.core as mx
    from mlx import nn
    from mlx.nn.utils import value_and_grad

    from ncp_agents.mlx import LTC, CfC
    from ncp_agents.wirings import AutoNCP

    made = {
        "lstm": lambda: nn.LSTM(INPUTS, NEURONS),
        "dense": lambda: CfC(INPUTS, NEURONS),
        "wired": lambda: CfC(INPUTS, AutoNCP(NEURONS, NEURONS // 4)),
        "ltc": lambda: LTC(INPUTS, AutoNCP(NEURONS, NEURONS // 8)),
    }[layer]()
    x = mx.array(_inputs(batch))
    gradients = value_and_grad(made, lambda x: made(x)[0].square().mean())
    return lambda: mx.eval(gradients(x))


def _inputs(batch: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, STEPS, INPUTS)).astype(np.float32)


PORTS = {
    "keras-tensorflow": Port(tensorflow_step, {"KERAS_BACKEND": "tensorflow"}, ncps=True),
    "keras-xla": Port(
        partial(tensorflow_step, jit_compile=True), {"KERAS_BACKEND": "tensorflow"}, ncps=True
    ),
    "keras-jax": Port(jax_step, {"KERAS_BACKEND": "jax"}, ncps=True),
    "keras-torch": Port(torch_step, {"KERAS_BACKEND": "torch"}, ncps=True),
    "mlx": Port(mlx_step, {}),
}


def milliseconds(
    port: str, layer: str, whose: str, batch: int, seconds: float
) -> tuple[float, float]:
    """The median of as many steps as fit in, at least one, and the first, which compiles."""
    step = PORTS[port].step(layer, whose, batch)
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[1:]), 1e3 * times[0]


def in_own_process(port: str, *case: Any) -> tuple[float, float] | str:
    """`milliseconds`, or the last line of what the process says where it fails."""
    run = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps([port, *case])],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **PORTS[port].environment},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        errors = [line for line in run.stderr.splitlines() if "Error: " in line]
        return errors[-1] if errors else f"ends with status {run.returncode}"
    return tuple(json.loads(run.stdout.splitlines()[-1]))


def main(
    only: tuple[str, ...] = tuple(PORTS),
    layers: tuple[str, ...] = LAYERS,
    batches: tuple[int, ...] = (8, 64),
    seconds: float = 2.0,
    case: str = "",
) -> None:
    """Args:
    only: ports to measure.
    layers: layers to measure.
    batches: each a B.
    seconds: to measure each for, after it is compiled.
    case: for the processes that this one starts.
    """
    if case:
        print(json.dumps(milliseconds(*json.loads(case))))
        return
    print(f"forward + backward, ms (first call, s), T={STEPS} I={INPUTS} N={NEURONS}")
    for batch in batches:
        print(f"B={batch}")
        for port in only:
            for layer in layers:
                peer = PORTS[port].ncps and layer != "lstm"
                row = [
                    in_own_process(port, layer, whose, batch, seconds)
                    for whose in (WHOSE if peer else WHOSE[:1])
                ]
                print(f"{port:17} {layer:6}", said(row), flush=True)


def said(row: list[tuple[float, float] | str]) -> str:
    """Ours, ncps's if it was measured, and how they compare."""
    parts = [
        f"{whose} {outcome}"
        if isinstance(outcome, str)
        else f"{whose} {outcome[0]:7.0f} ({outcome[1] / 1e3:.0f})"
        for whose, outcome in zip(WHOSE, row, strict=False)
    ]
    match row:
        case [(ours, _), (theirs, _)]:
            parts.append(f"{theirs / ours:.1f} times as fast")
    return "  ".join(parts)


if __name__ == "__main__":
    tyro.cli(main)
