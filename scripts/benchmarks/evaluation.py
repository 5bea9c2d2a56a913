"""How fast a policy is evaluated and recorded, against the games alone.

    python scripts/benchmarks/evaluation.py                  # 30 games, 8 at a time, 4 minutes
    python scripts/benchmarks/evaluation.py --policy pong-ltc --num-envs 16

Taking turns, so that what else the machine does hits all sides: `num_envs` games with random
actions and nothing else, then `evaluate` of 30 whole games, then `record` of as many. Steps count
in all environments, also in those that wait for the last game to end. A share is the median over
the turns.

What was learnt, on two cores without AVX-512, 8 games of Pong: the games take 1.9 ms a step on
both cores, the policy's look at 8 frames 1.2 ms on one, half of it the two convolutions. Two
halves that take turns, one's games running while the policy looks at the other, won nothing, 4.2
to 5.0 ms a step against 4.0: two looks at 4 frames take longer than one at 8. Two threads for the
policy took 5.0 ms against 4.3, because they wait by spinning; with OMP_WAIT_POLICY=passive, set
before Python starts, 3.5 to 4.3 against 4.2 to 4.9.

On two noisy cores with AVX-512 the policy looks at 8 frames in 0.8 ms where nothing else runs, in
1.4 to 2.3 ms between the games' steps, which empty its caches, and setting ALE's threads going
takes 0.7 to 1.1 ms. 16 games at a time make 2,050 steps/s where 8 make 1,490, and two groups of 8
in turns 2,250 to 2,450: a tenth to a fifth more, not worth a second way to play. Since the encoder
has a kernel of its own, which takes 0.2 ms for 8 frames, evaluation is at 37 to 55 % of the games'
speed and recording at 33 to 48 %, on such a machine in a noisy hour.
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

from ncp_agents.datasets.episodes import Demos
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.evaluation import evaluate
from ncp_agents.playing import Step
from ncp_agents.recording import provenance, record
from ncp_agents.saved_policy import SavedPolicy, find, load


@dataclass(frozen=True)
class Options:
    """How fast is a policy evaluated and recorded, against the games alone?"""

    policy: str = "pong-cfc"
    episodes: int = 30
    num_envs: int = 8
    turns: int = 3
    seconds: float = 5.0  # of games alone, a turn


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
        turns.append((alone, scores.steps_per_second, recording_speed(policy, options, turn)))

    table = Table("turn", "games alone, steps/s", "evaluation", "recording")
    for turn, (alone, *speeds) in enumerate(turns, 1):
        said = (f"{speed:,.0f} ({speed / alone:.0%})" for speed in speeds)
        table.add_row(str(turn), f"{alone:,.0f}", *said)
    shares = (median(turn[side] / turn[0] for turn in turns) for side in (1, 2))
    table.add_row("median", "", *(f"{share:.0%}" for share in shares))
    Console().print(table)


def recording_speed(policy: SavedPolicy, options: Options, seed: int) -> float:
    """Steps a second of `record`, in all environments, until the last game is on disk."""
    played = 0

    def counted(steps: Iterator[Step]) -> Iterator[Step]:
        nonlocal played
        for step in steps:
            played += len(step.actions)
            yield step

    with TemporaryDirectory() as folder:
        demos = Demos.create(Path(folder) / "demos", provenance(policy, "v4"))
        games = record(policy, demos, options.episodes, seed, options.num_envs, watch=counted)
        began = time.perf_counter()
        for _ in games:
            pass
        return played / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
