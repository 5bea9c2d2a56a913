"""Train a recurrent circuit with stable-baselines3 on a task that needs memory.

    python examples/train_with_sb3.py                # 15,000 steps, about 10 seconds

CartPole without velocities: the agent receives the cart's position and the pole's angle and has to
work out from earlier steps how fast both move. Without memory the pole stays up for some 50 steps
of 500. Evaluations every 5,000 steps print how long it stays up; at 475 steps the training ends.
The best policy is saved as best_model.zip in the folder --output.
"""

from __future__ import annotations

import argparse

from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from ncp_agents.envs.memory import CartPoleNoVel
from ncp_agents.sb3 import MlpNcpPolicy, SequencePPO
from ncp_agents.wirings import AutoNCP

NUM_ENVS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000, help="at most, in all environments")
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation")
    parser.add_argument("--output", default="cartpole", help="a folder")
    options = parser.parse_args()

    env = VecNormalize(make_vec_env(CartPoleNoVel, NUM_ENVS, seed=1))
    eval_env = VecNormalize(make_vec_env(CartPoleNoVel, 4, seed=2), norm_reward=False)
    model = SequencePPO(  # sb3-contrib's RecurrentPPO takes the same policy
        MlpNcpPolicy,
        env,
        n_steps=128,  # how far gradients reach back
        batch_size=256,  # 2 whole sequences
        gamma=0.98,
        gae_lambda=0.8,
        learning_rate=LinearSchedule(3e-3, 0.0, 1.0),
        target_kl=0.02,
        policy_kwargs={
            "wiring": AutoNCP(32, 8),  # 32 neurons, of which the actor reads 8
            "circuit_kwargs": {"init": "balanced"},
            "net_arch": {"pi": [], "vf": [32]},
        },
        seed=1,
    )
    evaluations = EvalCallback(
        eval_env,
        callback_on_new_best=StopTrainingOnRewardThreshold(475, verbose=1),
        eval_freq=min(options.steps, 5_000) // NUM_ENVS,
        n_eval_episodes=options.episodes,
        best_model_save_path=options.output,
    )
    model.learn(options.steps, evaluations)


if __name__ == "__main__":
    main()
