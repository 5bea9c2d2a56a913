"""How fast a policy is evaluated, against the games alone.

    python scripts/benchmarks/evaluation.py                  # 30 games, 8 at a time, 2 minutes
    python scripts/benchmarks/evaluation.py --policy pong-ltc --num-envs 16

Taking turns, so that what else the machine does hits both sides: `num_envs` games with random
actions and nothing else, then `evaluate` of 30 whole games. Steps count in all environments, also
in those that wait for the last game to end. A share is the median over the turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import tyro
from rich.console import Console
from rich.table import Table
from throughput import environment_speed

from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.evaluation import evaluate
from ncp_agents.saved_policy import find, load


@dataclass(frozen=True)
class Options:
    """How fast is a policy evaluated, against the games alone?"""

    policy: str = "pong-cfc"
    episodes: int = 30
    num_envs: int = 8
    turns: int = 3
    seconds: float = 5.0  # of games alone, a turn


def main() -> None:
    options = tyro.cli(Options)
    policy = load(find(options.policy))
    game = policy.recipe.environment.game
    table = Table("turn", "games alone, steps/s", "evaluation, steps/s", "share")
    shares = []
    evaluate(policy, options.num_envs, num_envs=options.num_envs)  # warms up
    for turn in range(options.turns):
        env = AtariVecEnv(game, options.num_envs, seed=turn)
        alone = environment_speed(env, options.seconds)
        env.close()
        scores = evaluate(policy, options.episodes, seed=turn, num_envs=options.num_envs)
        shares.append(scores.steps_per_second / alone)
        table.add_row(
            str(turn + 1),
            f"{alone:,.0f}",
            f"{scores.steps_per_second:,.0f}",
            f"{100 * shares[-1]:.0f} %",
        )
    table.add_row("median", "", "", f"{100 * median(shares):.0f} %")
    Console().print(table)


if __name__ == "__main__":
    main()
