"""How fast a policy is evaluated and recorded, against the environments alone.

    python scripts/benchmarks/evaluation.py                  # 30 episodes, 4 minutes
    python scripts/benchmarks/evaluation.py --policy pong-ltc --num-envs 16

Taking turns, so that what else the machine does hits all sides: `num_envs` environments
with random actions and nothing else, then `evaluate` of 30 whole episodes, then `record` of as
many. Steps count in all environments, also in those that wait for the last episode to end. A
fraction is the median over the turns.

Findings, on two noisy cores with AVX-512, 8 environments of Pong: emulators keep both cores
busy, 1.3 to 1.7 ms a step, so all that the policy does comes on top, and between emulators' steps,
which empty its caches, it takes half as long again as alone. One loop with all environments reached
43 % of their speed alone, 38 % when recording. What led to 71 % (70 to 77 in eight turns) and 61 %
(60 to 64):

- Two halves, each in a thread with half of ALE's threads: 58 % and 50 %. All of ALE's threads for
  each half are a tenth slower, threads pinned to cores no faster, two halves in turns in one thread
  hardly faster than all environments at once.
- A step of 4 frames in one call of C (`sb3/fused_inference.py`): 0.13 ms, 0.22 with what Python
  does around it, where kernels called one by one took 0.40. The encoder takes 0.11 ms of it. Two
  threads that called kernels one by one at the same time handed Python's interpreter to and fro at
  each, and took twice as long.
- Actions sampled without `torch.multinomial`, which took 0.05 ms.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from throughput import environment_speed

from ncp_agents.agents.saved_policy import SavedPolicy, load
from ncp_agents.agents.zoo import find
from ncp_agents.datasets.demonstrations import Demonstrations
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.evaluation.rollout import Step
from ncp_agents.imitation.recording import provenance, record


@dataclass(frozen=True)
class Options:
    """How fast is a policy evaluated and recorded, against the environments alone?"""

    policy: str = "pong-cfc"
    episodes: int = 30
    num_envs: int = 8
    turns: int = 3
    seconds: float = 5.0  # of the environments alone, a turn


def main() -> None:
    options = tyro.cli(Options)
    policy = load(find(options.policy))
    game = policy.recipe.environment.game
    evaluate(policy, options.num_envs, num_envs=options.num_envs)  # warms up
    turns = []
    for turn in track(range(options.turns), "turns"):
        env = AtariVecEnv(game, options.num_envs, seed=turn)
        alone = environment_speed(env, options.seconds)
        env.close()
        scores = evaluate(policy, options.episodes, seed=turn, num_envs=options.num_envs)
        speed = scores.steps_per_second or 0.0
        turns.append((alone, speed, recording_speed(policy, options, turn)))

    table = Table("turn", "environments alone, steps/s", "evaluation", "recording")
    for turn, (alone, *speeds) in enumerate(turns, 1):
        cells = (f"{speed:,.0f} ({speed / alone:.0%})" for speed in speeds)
        table.add_row(str(turn), f"{alone:,.0f}", *cells)
    fractions = (median(turn[side] / turn[0] for turn in turns) for side in (1, 2))
    table.add_row("median", "", *(f"{fraction:.0%}" for fraction in fractions))
    Console().print(table)


def recording_speed(policy: SavedPolicy, options: Options, seed: int) -> float:
    """Steps a second of `record`, in all environments, until the last episode is on disk."""
    played = 0

    def counted(steps: Iterator[Step]) -> Iterator[Step]:
        nonlocal played
        for step in steps:
            played += len(step.actions)
            yield step

    with TemporaryDirectory() as folder:
        demos = Demonstrations.create(Path(folder) / "demos", provenance(policy, "v4"))
        entries = record(
            policy, demos, options.episodes, seed, options.num_envs, wrap_steps=counted
        )
        began = time.perf_counter()
        for _ in entries:
            pass
        return played / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
