"""CartPole without velocities: the circuit of `MlpNcpPolicy` beside sb3-contrib's LSTM.

The speeds of cart and pole are hidden, so only an agent with memory can balance: one without
lasts about 50 steps of 500. Both agents train for 100,000 steps on the same environments, with
observations and rewards normalised as in rl-zoo3. Every 5,000 steps the agent plays 20 episodes
with deterministic actions on environments that take no part in training.

    python scripts/benchmarks/cartpole_no_vel.py                    # both agents, 3 seeds
    python scripts/benchmarks/cartpole_no_vel.py --agents circuit --seeds 7

The table gives, for each agent and seed,

- steps to 500: training steps at the first evaluation whose 20 episodes all lasted 500 steps,
- final mean: of the last evaluation, in steps an episode (500 is the most),
- solved: fraction of the evaluations from the first 500 on that reached 500,
- parameters: of the whole policy, critic included,
- seconds: of training, evaluations not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn
from tqdm import tqdm

from ncp_agents.envs.memory import CART_POLE_MAX_STEPS, CartPoleNoVel
from ncp_agents.sb3 import SequencePPO

NUM_ENVS = 8


@dataclass(frozen=True)
class Options:
    """How does the circuit compare with an LSTM on CartPole without velocities?"""

    agents: tuple[Literal["circuit", "LSTM"], ...] = ("circuit", "LSTM")
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = 100_000  # of training
    eval_every: int = 5_000  # steps
    eval_episodes: int = 20  # of each evaluation


def linear(start: float) -> Callable[[float], float]:
    """From `start` to 0 over the training."""
    return lambda remaining: remaining * start


class Agent(NamedTuple):
    algorithm: type[RecurrentPPO]
    arguments: dict[str, Any]


AGENTS = {
    "circuit": Agent(
        SequencePPO,
        {
            "policy": "MlpNcpPolicy",
            "n_steps": 128,  # how far gradients reach back
            "batch_size": 256,  # 2 sequences
            "n_epochs": 10,
            "gamma": 0.98,  # both as rl-zoo3's LSTM; with 0.99 and 0.95 fewer seeds hold 500
            "gae_lambda": 0.8,
            "learning_rate": linear(3e-3),
            "clip_range": linear(0.2),
            # Without a limit most runs fall back from 500. One explanation, not tested: once all
            # episodes last, advantages are noise, and normalising scales it up to size 1.
            "target_kl": 0.02,
            "policy_kwargs": {
                "circuit_kwargs": {"init": "balanced"},
                "net_arch": {"pi": [], "vf": [32]},
            },
        },
    ),
    # rl-zoo3, hyperparams/ppo_lstm.yml, CartPoleNoVel-v1
    "LSTM": Agent(
        RecurrentPPO,
        {
            "policy": "MlpLstmPolicy",
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": linear(1e-3),
            "clip_range": linear(0.2),
            "policy_kwargs": {
                "ortho_init": False,
                "activation_fn": nn.ReLU,
                "lstm_hidden_size": 64,
                "enable_critic_lstm": True,
                "net_arch": {"pi": [64], "vf": [64]},
            },
        },
    ),
}


class Evaluations(BaseCallback):
    """Evaluates at each multiple of `every` steps and stops the clock meanwhile."""

    def __init__(self, seed: int, every: int, episodes: int, bar: tqdm) -> None:
        super().__init__()
        self.env = VecNormalize(
            make_vec_env(CartPoleNoVel, 4, seed=10_000 + seed), training=False, norm_reward=False
        )
        self.every, self.episodes, self.bar = every, episodes, bar
        self.steps: list[int] = []
        self.means: list[float] = []
        self.seconds = 0.0  # spent here

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        if self.num_timesteps >= self.every * (len(self.steps) + 1):
            self._evaluate()
        return True

    def _evaluate(self) -> None:
        start = time.perf_counter()
        training = self.model.get_vec_normalize_env()
        assert training is not None
        self.env.obs_rms = training.obs_rms
        lengths, _ = evaluate_policy(self.model, self.env, self.episodes)
        self.model.policy.set_training_mode(False)
        self.steps.append(self.num_timesteps)
        self.means.append(float(np.mean(lengths)))
        self.bar.set_postfix(steps_an_episode=f"{self.means[-1]:.0f}")
        self.seconds += time.perf_counter() - start


class Result(NamedTuple):
    steps: list[int]  # at each evaluation
    means: list[float]  # of each evaluation, in steps an episode
    parameters: int
    seconds: float

    @property
    def steps_to_500(self) -> int | None:
        best = CART_POLE_MAX_STEPS
        return next(
            (at for at, mean in zip(self.steps, self.means, strict=True) if mean == best), None
        )

    @property
    def solved(self) -> float:
        if self.steps_to_500 is None:
            return 0.0
        since = self.means[self.steps.index(self.steps_to_500) :]
        return since.count(CART_POLE_MAX_STEPS) / len(since)


def train(name: str, seed: int, options: Options) -> Result:
    """One training, with evaluations."""
    agent = AGENTS[name]
    env = VecNormalize(make_vec_env(CartPoleNoVel, NUM_ENVS, seed=seed))
    model = agent.algorithm(env=env, seed=seed, device="cpu", **agent.arguments)
    with tqdm(total=options.steps, desc=f"{name} seed {seed}", unit="step", leave=False) as bar:
        evaluations = Evaluations(seed, options.eval_every, options.eval_episodes, bar)
        start = time.perf_counter()
        model.learn(options.steps, callback=evaluations)
        seconds = time.perf_counter() - start - evaluations.seconds
    parameters = sum(p.numel() for p in model.policy.parameters())
    return Result(evaluations.steps, evaluations.means, parameters, seconds)


def report(results: Mapping[tuple[str, int], Result]) -> Table:
    table = Table(
        "agent", "seed", "steps to 500", "final mean", "solved", "parameters", "seconds",
        title="CartPole without velocities",
    )  # fmt: skip
    for (name, seed), result in results.items():
        reached = result.steps_to_500
        table.add_row(
            name,
            str(seed),
            "never" if reached is None else f"{reached:,}",
            f"{result.means[-1]:.0f}" if result.means else "",
            f"{100 * result.solved:.0f} %",
            f"{result.parameters:,}",
            f"{result.seconds:.0f}",
        )
    return table


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(1)  # so small a network is slower with more
    results = {
        (name, seed): train(name, seed, options)
        for name in options.agents
        for seed in options.seeds
    }
    Console().print(report(results))


if __name__ == "__main__":
    main()
