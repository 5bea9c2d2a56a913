"""Play an episode of Pong with a saved policy.

    python examples/act_with_saved_policy.py         # about 10 seconds

The policy comes with the package; its circuit's state goes from step to step through this program,
which prints the score, and how often the policy chose each action.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.envs import AtariVecEnv, action_meanings
from ncp_agents.evaluation.rollout import evaluation_protocol


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--policy", default="pong-cfc", help="a name, or a policy's folder")
    parser.add_argument("--steps", type=int, default=27_000, help="at most; 4 frames each")
    parser.add_argument("--seed", type=int, default=0, help="of the episode")
    options = parser.parse_args()

    policy = saved_policy.load(zoo.find(options.policy))
    game = policy.recipe.environment.game
    env = AtariVecEnv(game, 1, evaluation_protocol(policy, "v4"), options.seed)
    observations = env.reset()  # (1, 1, 84, 84) uint8
    state, resets = None, np.array([True])  # True where an episode, or under v4 a life, starts
    names, chosen, score = action_meanings(game), Counter[str](), 0.0
    for _ in range(options.steps):
        actions, state = policy.predict(observations, state, resets, deterministic=True)
        observations, rewards, resets, infos = env.step(actions)
        chosen[names[actions[0]]] += 1
        score += rewards[0]
        if "episode" in infos[0]:  # the whole episode has ended, not only a life
            break
    env.close()
    print(f"{policy.name} plays {game}: score {score:.0f} after {chosen.total()} steps")
    for name, count in chosen.most_common():
        print(f"{count:6} {name}")


if __name__ == "__main__":
    main()
