"""How fast a sequence goes through CfC and LTC layers, beside ncps 1.0.1, nn.LSTM and nn.GRU.

    python scripts/benchmarks/cells.py                     # the sizes of docs/speed.md, 3 minutes
    python scripts/benchmarks/cells.py --grid              # all batches and sizes, some 20 minutes
    python scripts/benchmarks/cells.py --only wired ltc    # some of the layers
    python scripts/benchmarks/cells.py --plain             # ours without its compiled kernels
    python scripts/benchmarks/cells.py --growth runs/cells.png   # cost against T, B and synapses

All layers of a line are timed in one process, taking turns (A B C A B C), so that what else the
machine does hits all of them; a figure is the median. Milliseconds for one batch of sequences of
T = 128 steps of I = 256 inputs: forward without gradients, forward and backward, and one single
step without gradients, weights frozen, as in a rollout. The floor is what the arithmetic takes at
the speeds of matrix product and sigmoid that are measured at the start, with as many threads.
Memory is what a process of its own needs at most, above what it needed before the layer ran.

Findings, on 2 cores (docs/speed.md has the figures):

- A kernel in C beside torch needs torch's own threads: with a pool of its own it waited, for
  torch's spin for milliseconds after each operation. That halved every kernel's time.
- Nothing of the size of the sequence may be transposed or copied: all arrays follow the order of
  the inputs, and the weights' gradients are products of what the kernel left behind as it is.
- A vector's last part costs a call of memcpy, unless stored by a mask (AVX-512).
- An LTC is sigmoids. With 2^x by a polynomial of degree 5, and a Newton step for the division, they
  are faster than torch's, whose speed the floor counts: hence less than the floor. Sensory
  synapses go eight steps at a time, or their gradients leave the cache at every step.
- What is left: some half of wired at B = 64 are torch's matrix products, near the machine's peak;
  at B = 8 some half are its small operations, which fuse the heads.

wired is CfC on AutoNCP(N, N / 4), dense is CfC(N) with its backbone of 128 units, ltc is LTC on
AutoNCP(N, N / 8).
"""

from __future__ import annotations

import multiprocessing
import queue
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import ncps.torch
import ncps.wirings
import torch
import tyro
from _limits import both_ways, floor, machine_speed, rate
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

from ncp_agents import registry
from ncp_agents.files import atomic_write
from ncp_agents.torch import LTC, CfC, kernels
from ncp_agents.wirings import AutoNCP

STEPS, INPUTS = 128, 256
LAYERS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]] = {
    "wired": (
        lambda n: CfC(INPUTS, AutoNCP(n, n // 4)),
        lambda n: ncps.torch.CfC(INPUTS, ncps.wirings.AutoNCP(n, n // 4)),
    ),
    "dense": (lambda n: CfC(INPUTS, n), lambda n: ncps.torch.CfC(INPUTS, n)),
    "ltc": (
        lambda n: LTC(INPUTS, AutoNCP(n, n // 8)),
        lambda n: ncps.torch.LTC(INPUTS, ncps.wirings.AutoNCP(n, n // 8)),
    ),
}
PEERS: dict[str, Callable[[int], nn.Module]] = {
    "nn.LSTM": lambda n: nn.LSTM(INPUTS, n, batch_first=True),
    "nn.GRU": lambda n: nn.GRU(INPUTS, n, batch_first=True),
}
MAX_BYTES = 12e9  # ncps's LTC keeps every synapse of every unfold of every step


@dataclass(frozen=True)
class Options:
    """How fast a sequence goes through CfC and LTC layers, beside ncps, nn.LSTM and nn.GRU."""

    only: tuple[str, ...] = ("wired", "dense", "ltc")  # layers: wired, dense, ltc
    batches: tuple[int, ...] = (8, 64)  # B
    neurons: tuple[int, ...] = (64,)  # N
    grid: bool = False  # B of 8, 16, 64, 256 and N of 28, 64, 256 instead
    turns: int = 7  # measurements of each figure, of which the median counts
    threads: int = 0  # of torch; 0 takes one a core
    plain: bool = False  # ours without compiled kernels
    memory: bool = True  # measure memory as well (Linux)
    growth: Path | None = None  # only measure how ours grows, and draw it here


def passes(layer: nn.Module, batch: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    x = torch.randn(batch, STEPS, INPUTS)
    step = torch.randn(batch, 1, INPUTS)
    with torch.no_grad():
        state = layer(step)[1]
    parameters = [p for p in layer.parameters() if p.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def both() -> None:
        for parameter in parameters:
            parameter.grad = None
        layer(x)[0].sum().backward()

    def single() -> None:
        frozen = layer.frozen() if isinstance(layer, CfC | LTC) else nullcontext()
        with torch.no_grad(), frozen:
            for _ in range(STEPS):
                layer(step, state)

    return {"forward": forward, "both": both, "single": single}


def too_large(name: str, batch: int, neurons: int) -> bool:
    """Whether ncps would need more memory than there may be."""
    per_unfold = 4 * batch * neurons**2 * 4  # bytes of four arrays of float32
    sensory = 4 * batch * INPUTS * neurons * 4
    return name == "ltc" and STEPS * (6 * per_unfold + sensory) > MAX_BYTES


def timed(contenders: dict[str, dict[str, Callable[[], Any]]], turns: int) -> dict[str, dict]:
    """Milliseconds by contender and pass; `single` is of one step."""
    result: dict[str, dict[str, float]] = {name: {} for name in contenders}
    for kind in ("forward", "both", "single"):
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(turns + 1):
            for name, works in contenders.items():
                start = time.perf_counter()
                works[kind]()
                if turn:  # the one before warms up
                    times[name].append(time.perf_counter() - start)
        for name in contenders:
            steps = STEPS if kind == "single" else 1
            result[name][kind] = 1e3 * median(times[name]) / steps
    return result


def memory(name: str, side: int, batch: int, neurons: int) -> float:
    """MB that forward and backward need at most, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_memory, args=(name, side, batch, neurons, answer))
    process.start()
    while True:
        try:
            megabytes = answer.get(timeout=1)
        except queue.Empty:
            if process.is_alive():
                continue
            raise RuntimeError(f"the process that measured {name} died; out of memory?") from None
        process.join()
        return megabytes


def _memory(name: str, side: int, batch: int, neurons: int, answer: Any) -> None:
    make = LAYERS[name][side] if name in LAYERS else PEERS[name]
    layer = make(neurons)
    passes(layer, 1)["both"]()  # loads what is loaded at the first use
    both = passes(layer, batch)["both"]
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest size so far (Linux)
    before = _largest_size()
    both()
    answer.put((_largest_size() - before) / 1024)


def _largest_size() -> int:
    """kB of this process's memory at most."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def compare(options: Options, batch: int, neurons: int, speed: tuple[float, float]) -> Table:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {name: make(neurons) for name, make in PEERS.items()}
    for name in options.only:
        ours, theirs = registry.get("layer", name, LAYERS)
        layers[name] = ours(neurons)
        if not too_large(name, batch, neurons):
            layers[f"ncps {name}"] = theirs(neurons)
    with kernels.off() if options.plain else nullcontext():
        times = timed({name: passes(layer, batch) for name, layer in layers.items()}, options.turns)
    table = Table(
        "layer", "forward", "of ncps", "both ways", "of ncps", "of LSTM", "floor", "one step",
        "of ncps", "MB",
        title=f"B = {batch}, N = {neurons}: ms; 'of' is how many times as fast",
    )  # fmt: skip
    for name in [*options.only, *(f"ncps {name}" for name in options.only), *PEERS]:
        if name not in times:
            table.add_row(name, *[""] * 8, f"> {MAX_BYTES / 1e6:,.0f}")
            continue
        mine, theirs = times[name], times.get(f"ncps {name}")
        ratio = {kind: f"{theirs[kind] / mine[kind]:.1f}" if theirs else "" for kind in mine}
        limit = ""
        if name in LAYERS:
            cell = cast(Any, layers[name]).rnn_cell
            limit = f"{1e3 * floor(cell, batch * STEPS, *speed)[1]:.1f}"
        side = int(name.startswith("ncps "))
        needed = ""
        if options.memory and Path("/proc/self/clear_refs").exists():
            needed = f"{memory(name.removeprefix('ncps '), side, batch, neurons):,.0f}"
        table.add_row(
            name,
            f"{mine['forward']:.2f}",
            ratio["forward"],
            f"{mine['both']:.2f}",
            ratio["both"],
            f"{times['nn.LSTM']['both'] / mine['both']:.1f}" if name in LAYERS else "",
            limit,
            f"{mine['single']:.3f}",
            ratio["single"],
            needed,
        )
    return table


def growth(picture: Path, turns: int) -> None:
    """Draw the time of forward and backward against T, B and, for LTC, synapses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), dpi=120, layout="constrained")
    by_steps, by_batch, by_synapses = figure.subplots(1, 3)

    def curve(axes: Any, label: str, points: Iterable[tuple[float, nn.Module, int, int]]) -> None:
        measured = []
        for amount, layer, batch, steps in tqdm(list(points), desc=label, leave=False):
            x = torch.randn(batch, steps, INPUTS)
            seconds = 1 / rate(both_ways(lambda: layer(x)[0]), 1, turns * 0.1)  # noqa: B023
            measured.append((amount, 1e3 * seconds))
        axes.plot(*zip(*measured, strict=True), "o-", label=label)

    for name in ("wired", "ltc"):
        layer = LAYERS[name][0](64)
        curve(by_steps, name, ((t, layer, 64, t) for t in (16, 32, 64, 128, 256)))
        curve(by_batch, name, ((b, layer, b, STEPS) for b in (16, 32, 64, 128, 256)))
    points = []
    for sparsity in (0.9, 0.75, 0.5, 0.25, 0.0):
        layer = LTC(INPUTS, AutoNCP(64, 8, sparsity_level=sparsity))
        cell = layer.rnn_cell
        points.append((cell.sensory_synapse_count + 6 * cell.synapse_count, layer, 64, STEPS))
    curve(by_synapses, "ltc", points)
    for axes, label in (
        (by_steps, "T, steps (B = 64)"),
        (by_batch, "B, sequences (T = 128)"),
        (by_synapses, "synapses, internal ones six times"),
    ):
        axes.set_xlabel(label)
        axes.set_ylabel("forward and backward, ms")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, format="png")
    print(f"picture: {picture}")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.growth:
        growth(options.growth, options.turns)
        return
    speed = machine_speed(1.0)
    console = Console(width=120)
    console.print(
        f"{torch.get_num_threads()} threads: {speed[0] / 1e9:.0f} GFLOP/s in matrix products, "
        f"{speed[1] / 1e9:.2f} G sigmoids/s"
    )
    grid = ((8, 16, 64, 256), (28, 64, 256))
    batches, sizes = grid if options.grid else (options.batches, options.neurons)
    for neurons in sizes:
        for batch in batches:
            console.print(compare(options, batch, neurons, speed))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        print(f"cells: {error}", file=sys.stderr)
        sys.exit(2)
