"""How fast demos are read, beside np.load of ncps's layout and Minari, and what cloning waits.

    python scripts/benchmarks/dataset.py                    # the shipped episodes of Pong
    python scripts/benchmarks/dataset.py --demos demos/pong --turns 5

The same episodes lie in a temporary folder in every layout: ours (an .npz an episode, deflated),
ncps's (an .npz for 32 steps each, as np.savez and as np.savez_compressed write it), Minari's (one
HDF5 file, raw arrays). All are read in one process, taking turns; a figure is the median, in
steps/s. Nothing waits for the disk: what was just written is in memory still.

- episodes: decoded, whole, one after another; ours with its SHA-256 checked.
- batches: what a DataLoader in the same process gives, 32 shuffled windows of 32 steps as float32.
  In the first epoch every episode is decoded; later ones find it in memory, where ncps reads again.
  Minari has no windows: its episodes go through our dataset.
- chunks: what cloning trains on, uint8, episodes decoded as their turn comes.

Last, four epochs of cloning by the recipe: the fraction of an epoch, from its first chunk asked for
to its last one trained on, in which it waits for the next chunk.

Findings, on 2 cores:

- Reading is inflating, 80 % of it; checking the CRC takes 12 %, the SHA-256 nothing to speak of.
- Many streams share few episodes. When each stream decoded its episodes for itself, cloning of the
  shipped ones waited a third of its time; with one `Cache` for all of them, in the first
  epoch only.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import environ
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import tyro
from _command import run
from ncps.datasets.torch import AtariCloningDataset as NcpsDataset
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from ncp_agents.agents.recipe import Recipe, read_recipe
from ncp_agents.agents.zoo import find
from ncp_agents.datasets import AtariCloningDataset
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.datasets.cache import Cache
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.datasets.episode_file import Episode
from ncp_agents.datasets.minari import to_minari
from ncp_agents.datasets.sequences import Chunk, EpisodeSubset, chunks
from ncp_agents.datasets.upstream import LAYOUT
from ncp_agents.imitation import cloning, learner
from ncp_agents.training.run_folder import RunFolder

LENGTH, BATCH = 32, 32  # T of a window, B of a batch
EPOCHS = 4  # of cloning
OURS, STORED, DEFLATED, MINARI = (
    "ours", "ncps layout, np.savez", "ncps layout, np.savez_compressed", "Minari, HDF5"
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How fast demos are read, beside np.load of ncps's layout and Minari."""

    demos: Path = SHIPPED / "pong"  # a folder of demos
    recipe: str = "pong-cfc"  # what is cloned
    turns: int = 3  # measurements of each figure, of which the median counts


class MinariEpisodes:
    """Minari's episodes in the place of a dataset's own demos."""

    def __init__(self, demos: Demonstrations, dataset: Any) -> None:
        self.entries, self.dataset = demos.entries, dataset

    def read(self, index: int) -> Episode:
        theirs = self.dataset[index]
        ends = bool(theirs.terminations[-1]), bool(theirs.truncations[-1])
        return Episode(theirs.observations[:-1], theirs.actions, theirs.rewards, *ends)


def write_ncps(demos: Demonstrations, root: Path, save: Callable[..., None]) -> Path:
    """The windows of all episodes in ncps's layout."""
    folder = root / LAYOUT / demos.provenance.game
    folder.mkdir(parents=True)
    for index in range(len(demos.entries)):
        episode = demos.read(index)
        for start in range(0, len(episode) - LENGTH + 1, LENGTH):
            steps = slice(start, start + LENGTH)
            name = f"train_{index:03d}_{start:06d}.npz"
            save(folder / name, obs=episode.obs[steps], actions=episode.actions[steps])
    return root


def load(path: Path) -> int:
    with np.load(path, allow_pickle=False) as arrays:
        return len(arrays["obs"]) * (len(arrays["actions"]) > 0)


def drain(dataset: Any) -> int:
    """Steps in an epoch of shuffled batches."""
    batches = DataLoader(cast(Dataset, dataset), batch_size=BATCH, shuffle=True)
    return sum(actions.numel() for _, actions in batches)


def timed(works: dict[str, Callable[[], int]], turns: int) -> dict[str, float]:
    """Steps/s by contender; each returns its number of steps."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            start = time.perf_counter()
            steps = work()
            rates[name].append(steps / (time.perf_counter() - start))
    return {name: median(values) for name, values in rates.items()}


def compare(demos: Demonstrations, root: Path, turns: int) -> Table:
    environ["MINARI_DATASETS_PATH"] = str(root / "minari")
    theirs = to_minari(demos, "benchmark-v0")
    layouts = {
        STORED: write_ncps(demos, root / "stored", np.savez),
        DEFLATED: write_ncps(demos, root / "deflated", np.savez_compressed),
    }
    game, indices = demos.provenance.game, range(len(demos.entries))
    minari_episodes = MinariEpisodes(demos, theirs)

    def ours() -> AtariCloningDataset:
        return AtariCloningDataset(game, "train", demos.path, LENGTH)

    def minari() -> AtariCloningDataset:
        dataset = ours()
        dataset.cache = Cache(minari_episodes)
        return dataset

    ncps = {name: NcpsDataset(game, root_dir=str(path)) for name, path in layouts.items()}
    kept = {OURS: ours(), MINARI: minari()}
    for dataset in kept.values():
        drain(dataset)
    measured = {
        "episodes": timed(
            {
                OURS: lambda: sum(len(demos.read(index)) for index in indices),
                **{
                    name: lambda data=data: sum(load(path) for path in data.files)
                    for name, data in ncps.items()
                },
                MINARI: lambda: sum(len(minari_episodes.read(index)) for index in indices),
            },
            turns,
        ),
        "batches, first epoch": timed(
            {
                OURS: lambda: drain(ours()),
                **{name: lambda data=data: drain(data) for name, data in ncps.items()},
                MINARI: lambda: drain(minari()),
            },
            turns,
        ),
        "batches, later": timed(
            {
                OURS: lambda: drain(kept[OURS]),
                **{name: lambda data=data: drain(data) for name, data in ncps.items()},
                MINARI: lambda: drain(kept[MINARI]),
            },
            turns,
        ),
    }
    sizes = {OURS: demos.size}
    folders = {**layouts, MINARI: root / "minari"}
    for name, folder in folders.items():
        sizes[name] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    table = Table("", "MB", *measured, title=f"{len(indices)} episodes, {demos.steps:,} steps")
    for name, size in sizes.items():
        rates = [f"{rate[name]:,.0f}" for rate in measured.values()]
        table.add_row(name, f"{size / 1e6:,.1f}", *rates)
    return table


def chunks_alone(demos: Demonstrations, recipe: Recipe, turns: int) -> float:
    """Steps/s of an epoch's chunks without training on them."""
    options = recipe.cloning
    subsets = [EpisodeSubset(demos, range(len(demos.entries)))]

    def epoch() -> int:
        random = np.random.default_rng(0)
        epoch = chunks(
            subsets, options.sequences, options.sequence_length, recipe.ppo.gamma, random
        )
        return sum(int(chunk.mask.sum()) for chunk in epoch)

    return timed({OURS: epoch}, turns)[OURS]


@contextmanager
def timed_chunks() -> Iterator[list[tuple[float, float]]]:
    """The seconds that each of cloning's passes through its chunks takes, and those it waits."""
    passes, source = [], learner.chunks

    def timed_pass(*args: Any) -> Iterator[Chunk]:
        begin, waiting, following = time.perf_counter(), 0.0, source(*args)
        while True:
            asked = time.perf_counter()
            chunk = next(following, None)
            waiting += time.perf_counter() - asked
            if chunk is None:
                break
            yield chunk
        passes.append((time.perf_counter() - begin, waiting))

    learner.chunks = timed_pass  # type: ignore[assignment]
    try:
        yield passes
    finally:
        learner.chunks = source


def clone(demos: Demonstrations, recipe: Recipe, root: Path) -> Table:
    """What cloning waits for its chunks."""
    options = replace(recipe.cloning, epochs=EPOCHS, eval_every=0)
    run = RunFolder.create(root / "run", replace(recipe, cloning=options))
    with timed_chunks() as passes:
        cloning.clone(run, [demos])
    table = Table("cloning", "s an epoch", "steps/s", "waiting for chunks")
    each = len(passes) // EPOCHS  # learning and validation
    for name, some in (("first epoch", passes[:each]), ("later", passes[each:])):
        total, waiting = (sum(seconds) for seconds in zip(*some, strict=True))
        epochs = len(some) / each
        speed = f"{epochs * demos.steps / total:,.0f}"
        table.add_row(name, f"{total / epochs:.1f}", speed, f"{waiting / total:.1%}")
    return table


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    demos, recipe = Demonstrations(options.demos), read_recipe(find(options.recipe) / "recipe.toml")
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        console.print(compare(demos, root, options.turns))
        rate = chunks_alone(demos, recipe, options.turns)
        console.print(f"chunks, without training on them: {rate:,.0f} steps/s")
        console.print(clone(demos, recipe, root))


if __name__ == "__main__":
    run(main)
