"""How fast each port takes a sequence forward and backward, beside ncps's port and the framework's
own LSTM.

    python scripts/benchmarks/ports.py                           # every framework at hand
    python scripts/benchmarks/ports.py --only keras-tensorflow   # some of them

Milliseconds for one batch of B = 64 sequences of T = 128 steps of I = 256 inputs, forward and
backward, the gradient of every weight. All are compiled: under TensorFlow by `tf.function`, which
is what Keras does by itself on a CPU, and again with `jit_compile=True` (XLA). Each layer runs in a
process of its own, since a process has one backend of Keras; a figure is the median.

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

BATCH, STEPS, INPUTS, NEURONS = 64, 128, 256, 64
LAYERS = ("lstm", "dense", "wired", "ltc")
WHOSE = ("ours", "ncps")

Step = Callable[[], None]
"""Forward and backward once, until the numbers are there."""


@dataclass(frozen=True)
class Port:
    """One row of the table of frameworks."""

    step: Callable[[str, str], Step]
    """(layer, whose) → a compiled step."""
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


def tensorflow_step(layer: str, whose: str, jit_compile: bool = False) -> Step:
    import tensorflow as tf

    ours = keras_layer(layer, whose)
    x = tf.constant(_inputs())
    ours(x[:1, :2])

    @tf.function(jit_compile=jit_compile)
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(ours(x) ** 2)
        return tape.gradient(loss, ours.trainable_variables)

    return lambda: gradients()[0].numpy()


def jax_step(layer: str, whose: str) -> Step:
    import jax

    ours = keras_layer(layer, whose)
    x = jax.numpy.asarray(_inputs())
    ours(x[:1, :2])
    values = [variable.value for variable in ours.trainable_variables]
    rest = [variable.value for variable in ours.non_trainable_variables]

    @jax.jit
    def gradients(values: Any) -> Any:
        return jax.grad(lambda v: (ours.stateless_call(v, rest, x)[0] ** 2).mean())(values)

    return lambda: jax.block_until_ready(gradients(values))


def _inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, STEPS, INPUTS)).astype(np.float32)


PORTS = {
    "keras-tensorflow": Port(tensorflow_step, {"KERAS_BACKEND": "tensorflow"}, ncps=True),
    "keras-xla": Port(
        partial(tensorflow_step, jit_compile=True), {"KERAS_BACKEND": "tensorflow"}, ncps=True
    ),
    "keras-jax": Port(jax_step, {"KERAS_BACKEND": "jax"}, ncps=True),
}


def milliseconds(port: str, layer: str, whose: str, seconds: float) -> tuple[float, float]:
    """The median of as many steps as fit in, at least one, and the first, which compiles."""
    step = PORTS[port].step(layer, whose)
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[1:]), 1e3 * times[0]


def in_own_process(*case: Any, port: str) -> tuple[float, float]:
    run = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps(case)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **PORTS[port].environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return tuple(json.loads(run.stdout.splitlines()[-1]))


def main(
    only: tuple[str, ...] = tuple(PORTS),
    layers: tuple[str, ...] = LAYERS,
    seconds: float = 2.0,
    case: str = "",
) -> None:
    """Args:
    only: ports to measure.
    layers: layers to measure.
    seconds: to measure each for, after it is compiled.
    case: for the processes that this one starts.
    """
    if case:
        port, layer, whose, seconds = json.loads(case)
        print(json.dumps(milliseconds(port, layer, whose, seconds)))
        return
    print(f"forward + backward, ms (first call, s): B={BATCH} T={STEPS} I={INPUTS} N={NEURONS}")
    for port in only:
        for layer in layers:
            row = {}
            for whose in WHOSE if PORTS[port].ncps and layer != "lstm" else ("ours",):
                row[whose] = in_own_process(port, layer, whose, seconds, port=port)
            figures = [
                f"{whose} {ms:7.0f} ({first / 1e3:.0f})" for whose, (ms, first) in row.items()
            ]
            if "ncps" in row:
                figures.append(f"{row['ncps'][0] / row['ours'][0]:.1f} times as fast")
            print(f"{port:17} {layer:6}", "  ".join(figures), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
