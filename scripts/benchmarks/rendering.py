"""How fast an episode becomes a video or a page, against its duration.

    python scripts/benchmarks/rendering.py                # an episode of Pong, 2 minutes
    python scripts/benchmarks/rendering.py --policy pong-ltc --steps 300

One episode is run and kept, which takes the seconds in the first row; then it is drawn beside the
circuit's activity and encoded in each format, and written as a page. Real time is 15 steps a
second.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from ncp_agents.agents.saved_policy import load
from ncp_agents.agents.zoo import find
from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.evaluation.rollout import evaluation_protocol
from ncp_agents.explain.activations import record_trace
from ncp_agents.explain.circuit_graph import circuit_graph
from ncp_agents.rendering.circuit_video import circuit_frames
from ncp_agents.rendering.page import write_page
from ncp_agents.rendering.video import write_video


@dataclass(frozen=True)
class Options:
    """How fast does an episode become a video or a page?"""

    policy: str = "pong-cfc"
    steps: int | None = None  # of the episode; default a whole one
    formats: tuple[str, ...] = ("mp4", "webm", "gif")


def main() -> None:
    options = tyro.cli(Options)
    policy = load(find(options.policy))
    rules = evaluation_protocol(policy, "v4")
    if options.steps is not None:
        rules = replace(rules, max_frames=options.steps * rules.frame_skip)
    began = time.perf_counter()
    trace, graph = record_trace(policy, protocol=rules), circuit_graph(policy)
    table = Table("what", "seconds", "× real time", "MB")
    duration = len(trace) / STEPS_PER_SECOND

    def row(what: str, began: float, path: Path | None = None) -> None:
        seconds = time.perf_counter() - began
        size = "" if path is None else f"{path.stat().st_size / 1e6:.2f}"
        table.add_row(what, f"{seconds:.1f}", f"{duration / seconds:.1f}", size)

    row(f"played: {len(trace):,} steps, {duration:.0f} s of video", began)
    with tempfile.TemporaryDirectory() as folder:
        writers: dict[str, Callable[[Path], object]] = {
            form: lambda path: write_video(path, circuit_frames(trace, graph, policy.name), scale=1)
            for form in options.formats
        }
        writers["html"] = lambda path: write_page(path, trace, graph, policy.name)
        for form, write in writers.items():
            path, began = Path(folder) / f"game.{form}", time.perf_counter()
            write(path)
            row("page" if form == "html" else f"{form}, game beside circuit", began, path)
    Console().print(table)


if __name__ == "__main__":
    main()
